"""Differences that are declared beforehand, and tested as one family."""

import numpy as np
import pytest
from probe_data import made

from pipeline.judging.arm import ArmId
from pipeline.judging.contrasts import CONTRASTS, contrasts, holm
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import Scores, TaskId, scored_rows
from pipeline.judging.settings import Balancing

POINT, OTHER, VARIANT = "resid_post.2", "layer_delta.2", "topk"
SAE = ArmId("sae", (POINT,), VARIANT)


def test_p_values_are_adjusted_as_in_a_known_example() -> None:
    """Sorted, they are taken 4, 3, 2 and 1 times, and none is less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def board_of(telling: dict[ArmId, float]) -> Scoreboard:
    """Scores of arms: the label, as much as each is said to tell, and noise of which half is common to all."""
    prompts, _ = made(1200, 0)
    rng = np.random.default_rng(0)
    rows = scored_rows(prompts)
    common = rng.normal(size=len(rows))
    scores: Scores = {TaskId("balanced", 0, 0): {}}
    for arm, much in telling.items():
        scores[TaskId("balanced", 0, 0)][arm] = much * prompts.labels[rows] + common + 0.5 * rng.normal(size=len(rows))
    return Scoreboard(scores, {0: prompts}, balancing=Balancing("even", 2), resamples=500, confidence=0.95)


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
    found = contrasts(board, SAE, {ArmId("dense", (POINT,)): 0.7, attention: 0.9}, 0.95)
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
        assert each.keys() == {"arm", "baseline", "difference", "low", "high", "p_value", "p_holm", "verdict"}
