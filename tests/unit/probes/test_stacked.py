"""Arms that put others together: they gain where their parts know different things, and lose nothing by noise."""

from pathlib import Path

import numpy as np
import pytest
from probe_data import HOW, full_task, made
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pipeline.core.errors import UserError
from pipeline.core.files import write_table
from pipeline.judging.arm import ArmId
from pipeline.judging.scores import TaskId, scored_rows, scores_table
from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Scored
from pipeline.probes.arms.stacked import Logits, read_logits, stacks
from pipeline.prompts.table import Prompts

POINTS, VARIANT = ("resid_post.2", "layer_delta.2"), "topk"
WORDS = ArmId("tfidf")
DENSE = [ArmId("dense", (point,)) for point in POINTS]
SAES = [ArmId("sae", (point,), VARIANT) for point in POINTS]


def planted(telling: dict[ArmId, float]) -> tuple[Prompts, dict[ArmId, np.ndarray]]:
    """Prompts, and logits of all parts: the label, as much as it is said to tell, and noise of each part's own."""
    prompts, _ = made(3000, 0)
    rng = np.random.default_rng(0)
    parts = (WORDS, *DENSE, *SAES)
    noise = rng.normal(size=(len(parts), 3000))
    return prompts, {
        part: 7 + 3 * (telling.get(part, 0.0) * prompts.labels + noise[row]) for row, part in enumerate(parts)
    }


def fitted(prompts: Prompts, logits: Logits, name: str, points: tuple[str, ...] = POINTS[:1]) -> Scored:
    every = {arm.name: arm for variant in (None, VARIANT) for arm in stacks(points, variant)}
    (scored,) = every[name].scores(logits, full_task(prompts), prompts.groups, HOW)
    return scored


def auroc(prompts: Prompts, scores: np.ndarray) -> float:
    return float(roc_auc_score(prompts.labels[prompts.test], scores[prompts.test]))


def test_parts_that_know_different_things_are_better_together() -> None:
    prompts, logits = planted({WORDS: 1.0, DENSE[0]: 1.0, SAES[0]: 1.0})
    two, three = (
        auroc(prompts, fitted(prompts, logits, name).probabilities)
        for name in ("words-and-dense", "words-dense-and-sae")
    )
    words = auroc(prompts, logits[WORDS])
    assert words + 0.04 < two < three - 0.02
    both_points = auroc(prompts, fitted(prompts, logits, "words-dense-and-sae", POINTS).probabilities)
    assert both_points == pytest.approx(three, abs=0.005), "those at the other point say nothing"


def test_a_part_that_is_noise_helps_nothing_and_harms_nothing() -> None:
    prompts, logits = planted({WORDS: 1.5})
    found = fitted(prompts, logits, "words-dense-and-sae", POINTS)
    assert auroc(prompts, found.probabilities) == pytest.approx(auroc(prompts, logits[WORDS]), abs=0.005)
    assert np.abs(found.weights["coefficient"][1:]).max() < 0.1 * found.weights["coefficient"][0]


def test_weights_and_parts_are_all_that_is_needed_to_score_a_prompt() -> None:
    prompts, logits = planted({WORDS: 1.0, DENSE[1]: 0.5})
    found = fitted(prompts, logits, "words-dense-and-sae", POINTS)
    parts = [ArmId(part["arm"], tuple(part["points"]), part["variant"]) for part in found.choices["parts"]]
    assert parts == [WORDS, *DENSE, *SAES]
    w, x = found.weights, np.stack([logits[part] for part in parts], axis=1)
    assert expit((x - w["offset"]) / w["scale"] @ w["coefficient"] + w["intercept"]) == pytest.approx(
        found.probabilities
    )
    train = full_task(prompts).train
    assert w["offset"] == pytest.approx(x[train].mean(axis=0)) and w["scale"] == pytest.approx(x[train].std(axis=0))


def test_nothing_of_test_or_of_harmless_prompts_is_learned() -> None:
    prompts, logits = planted({WORDS: 1.0, DENSE[0]: 1.0})
    rng = np.random.default_rng(1)
    spoilt = {part: np.where(prompts.train, values, rng.normal(size=3000) * 50) for part, values in logits.items()}
    true, other = (fitted(prompts, each, "words-and-dense") for each in (logits, spoilt))
    assert true.choices == other.choices
    np.testing.assert_equal(true.weights, other.weights)
    assert true.out_of_fold is not None
    np.testing.assert_array_equal(true.out_of_fold, other.out_of_fold)
    train = full_task(prompts).train
    assert roc_auc_score(prompts.labels[train], true.out_of_fold) == pytest.approx(
        auroc(prompts, true.probabilities), abs=0.03
    )


def test_logits_are_read_out_of_fold_for_train_and_as_they_are_for_the_others(tmp_path: Path) -> None:
    prompts, logits = planted({WORDS: 1.0})
    rows, train, task = scored_rows(prompts), full_task(prompts).train, TaskId(FULL, 0, prompts.seed)
    others = [(TaskId("scarce_16", 0, 0), WORDS, np.full(len(rows), 0.5)), (task, ArmId("pca", k=1), rows / 1e4)]
    blocks = [(task, arm, expit(values[rows])) for arm, values in logits.items()]
    own = [(task, arm, train, values[train]) for arm, values in logits.items()]
    write_table(tmp_path / "scores.parquet", scores_table(prompts, blocks + others, own))
    found = read_logits([tmp_path / "scores.parquet"], prompts)
    assert list(found) == list(logits)
    unused = np.setdiff1d(np.flatnonzero(prompts.train), train)
    for arm, values in found.items():
        known = np.delete(np.arange(3000), unused)
        assert values[known] == pytest.approx(logits[arm][known], rel=1e-5) and np.isnan(values[unused]).all()

    write_table(tmp_path / "old.parquet", scores_table(prompts, blocks, own[1:]))
    with pytest.raises(UserError, match="no out-of-fold logits of tfidf: run 'dvc repro'"):
        read_logits([tmp_path / "old.parquet"], prompts)
