"""Differences that are declared beforehand, and tested as one family."""

import numpy as np
import pytest
from probe_data import made

from pipeline.judging.arm import ArmId
from pipeline.judging.contrasts import CONTRASTS, contrasts, holm, over_seeds
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import Scores, TaskId, scored_rows
from pipeline.judging.settings import Balancing

POINT, OTHER, VARIANT = "resid_post.2", "layer_delta.2", "topk"
SAE = ArmId("sae", (POINT,), VARIANT)


def test_p_values_are_adjusted_as_in_a_known_example() -> None:
    """Sorted, they are taken 4, 3, 2 and 1 times, and none is less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


OTHERS_OF_CONTRASTS = [
    ("tfidf", (), None),
    ("untrained", (POINT,), VARIANT),
    ("dense-and-sae", (POINT,), VARIANT),
    ("words-and-dense", (POINT,), None),
    ("words-dense-and-sae", (POINT,), VARIANT),
]


def board_of(telling: dict[ArmId, float]) -> Scoreboard:
    """Scores of arms: the label, as much as each is said to tell, and noise of which half is common to all."""
    prompts, _ = made(1200, 0)
    rng = np.random.default_rng(0)
    rows = scored_rows(prompts)
    common = rng.normal(size=len(rows))
    scores: Scores = {TaskId("balanced", 0, 0): {}}
    for arm, much in telling.items():
        scores[TaskId("balanced", 0, 0)][arm] = much * prompts.labels[rows] + common + 0.5 * rng.normal(size=len(rows))
    return Scoreboard(scores, {}, {0: prompts}, balancing=Balancing("even", 2), resamples=500, confidence=0.95)


def test_contrasts_are_of_arms_at_the_point_and_of_the_variant_of_the_sae() -> None:
    attention = ArmId("attention", (POINT,))
    board = board_of(
        {
            ArmId("tfidf"): 1.0,
            ArmId("dense", (OTHER,)): 9.0,
            ArmId("dense", (POINT,)): 1.0,
            attention: 3.0,
            SAE: 2.0,
            ArmId("untrained", (POINT,), VARIANT): 2.0,
            ArmId("untrained", (POINT,), "gated"): 9.0,
            ArmId("dense-and-sae", (POINT,), VARIANT): 2.5,
            ArmId("words-and-dense", (POINT,)): 1.0,
            ArmId("words-dense-and-sae", (POINT,), VARIANT): 2.0,
            ArmId("words-dense-and-sae", (OTHER, POINT), VARIANT): 9.0,
        }
    )
    found = contrasts(board, SAE, {ArmId("dense", (POINT,)): 0.7, attention: 0.9})
    assert list(found) == list(CONTRASTS)
    assert {name: each["verdict"] for name, each in found.items()} == {
        "sae_minus_dense": "better",
        "sae_minus_best_dense": "worse",
        "sae_minus_untrained": "not shown",
        "dense_and_sae_minus_dense": "better",
        "words_and_dense_minus_words": "not shown",
        "words_dense_and_sae_minus_words_and_dense": "better",
    }
    assert found["sae_minus_best_dense"]["baseline"] == f"attention @ {POINT}"
    assert found["words_dense_and_sae_minus_words_and_dense"]["arm"] == f"words-dense-and-sae_topk @ {POINT}"
    values = [each["p_value"] for each in found.values()]
    assert [each["p_holm"] for each in found.values()] == holm(values)
    for each in found.values():
        assert each["low"] <= each["difference"] <= each["high"]
        assert {"arm", "baseline", "p_value", "p_holm", "verdict", "includes"} < each.keys()
        assert each["includes"] == "test prompts"


def test_with_several_seeds_the_interval_includes_their_variance() -> None:
    rng = np.random.default_rng(0)
    prompts_by_seed = {seed: made(600, seed, test=0.2)[0] for seed in range(6)}
    scores: Scores = {}
    for seed, prompts in prompts_by_seed.items():
        rows = scored_rows(prompts)
        labels, noise = prompts.labels[rows], rng.normal(size=len(rows))
        scores[TaskId("balanced", 0, seed)] = {
            ArmId("dense", (POINT,)): labels + noise,
            SAE: (1.2 + 0.3 * (-1) ** seed) * labels + noise,
        } | {ArmId(name, points, variant): labels + noise for name, points, variant in OTHERS_OF_CONTRASTS}
    board = Scoreboard(scores, {}, prompts_by_seed, balancing=Balancing("even", 2), resamples=100, confidence=0.95)
    found = contrasts(board, SAE, {ArmId("dense", (POINT,)): 0.7})["sae_minus_dense"]
    assert found["includes"] == "splits, seeds of SAEs and probes"
    assert found["low"] < found["difference"] < found["high"]
    assert found["high"] - found["low"] > 2 * 0.05, "seeds are further apart than prompts"


def test_the_interval_over_seeds_covers_where_splits_share_their_prompts() -> None:
    """Means of test fifths of the same 50 numbers, 10 random splits each: what is known of their mean is little."""
    covered = {"corrected": 0, "naive": 0}
    for run in range(400):
        rng = np.random.default_rng(run)
        population = rng.normal(size=50)
        values = [float(population[rng.permutation(50)[:10]].mean()) for _ in range(10)]
        found = over_seeds(values, 10 / 40, 0.95)
        covered["corrected"] += found["low"] <= 0 <= found["high"]
        naive = over_seeds(values, 0.0, 0.95)
        covered["naive"] += naive["low"] <= 0 <= naive["high"]
    assert covered["corrected"] / 400 > 0.9 > 0.85 > covered["naive"] / 400
    alike = over_seeds([0.25, 0.25, 0.25], 0.25, 0.95)
    assert alike == {"difference": 0.25, "low": -1, "high": 1, "p_value": 1}, "values alike say nothing of variance"
