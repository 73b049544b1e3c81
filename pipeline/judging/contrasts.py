"""The differences that the question is about, declared before any is computed, and tested as one family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from pipeline.judging.arm import ArmId
from pipeline.judging.metrics import value_of
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import TaskId
from pipeline.judging.settings import FULL

TEST_PROMPTS, SPLITS_AND_SEEDS = "test prompts", "splits, seeds of SAEs and probes"
TINY = 1e-12  # of a standard error
BEST_DENSE = "best dense"  # by cross-validation, of all that read the activations at the point and no SAE


@dataclass(frozen=True)
class Contrast:
    """AUROC of one arm minus that of another, on the balanced test prompts; both at the point of the SAE.

    arm, baseline: names of arms, or BEST_DENSE.
    """

    arm: str
    baseline: str


CONTRASTS = {
    "sae_minus_dense": Contrast("sae", "dense"),
    "sae_minus_best_dense": Contrast("sae", BEST_DENSE),
    "sae_minus_untrained": Contrast("sae", "untrained"),
    "dense_and_sae_minus_dense": Contrast("dense-and-sae", "dense"),
    "words_and_dense_minus_words": Contrast("words-and-dense", "tfidf"),
    "words_dense_and_sae_minus_words_and_dense": Contrast("words-dense-and-sae", "words-and-dense"),
}


def contrasts(board: Scoreboard, sae: ArmId, dense: Mapping[ArmId, float]) -> dict[str, Any]:
    """Compare the arms of CONTRASTS, paired.

    Args:
        sae: the SAE's arm; the others are at its point and, where they have one, of its variant.
        dense: cross-validated AUROC of the dense arms of any kind at its point.

    Returns: by name, `arm` and `baseline` as people call them, the difference with its interval, `p_value`, `p_holm`
        and the verdict that this gives: `better`, `worse` or `not shown`. When no arms differ, one or more are said to
        with a chance of 1 minus the board's confidence at most. `includes` says what the interval is of:
        other test prompts; or, with several seeds, other splits and other seeds of SAEs and probes (`over_seeds`).
    """
    best = max(dense, key=lambda arm: dense[arm])

    def arm_of(name: str) -> ArmId:
        if name == BEST_DENSE:
            return best
        same = [ArmId(name), ArmId(name, sae.points), ArmId(name, sae.points, sae.variant)]
        return next((arm for arm in same if arm in board.arms), same[-1])

    found: dict[str, Any] = {}
    for name, contrast in CONTRASTS.items():
        arm, baseline = arm_of(contrast.arm), arm_of(contrast.baseline)
        found[name] = {"arm": str(arm), "baseline": str(baseline)} | _difference(board, arm, baseline)
    for each, adjusted in zip(found.values(), holm([each["p_value"] for each in found.values()]), strict=True):
        shown = adjusted <= 1 - board.judge.confidence
        verdict = ("better" if each["difference"] > 0 else "worse") if shown else "not shown"
        each |= {"p_holm": adjusted, "verdict": verdict}
    return found


def _difference(board: Scoreboard, arm: ArmId, baseline: ArmId) -> dict[str, Any]:
    if len(board.prompts_by_seed) == 1:
        scores = (board.arms[each][board.balanced] for each in (arm, baseline))
        return board.judge.difference(*scores) | {"includes": TEST_PROMPTS}
    values, ratios = [], []
    for seed, prompts in board.prompts_by_seed.items():
        positions = board.balanced_positions(seed)
        ratios.append(len(positions) / len(board.balanced_rows(seed, "train")))
        labels = prompts.labels[board.test_rows(seed)[positions]]
        first, second = (board.scores[TaskId(FULL, 0, seed)][each][positions] for each in (arm, baseline))
        values.append(value_of("auroc", labels, first) - value_of("auroc", labels, second))
    return over_seeds(values, float(np.mean(ratios)), board.judge.confidence) | {"includes": SPLITS_AND_SEEDS}


def over_seeds(values: Sequence[float], test_to_train: float, confidence: float) -> dict[str, float]:
    """Return the mean of a difference over random splits, with its interval and p-value.

    Train sides of random splits overlap, so their values are not independent: the variance of the mean is that of the
    values times 1 / n + test_to_train, not 1 / n, and the interval Student's t with n - 1 degrees of freedom (Nadeau &
    Bengio 2003, "Inference for the Generalization Error").

    Values that do not differ at all say nothing of their variance: then the interval is all that can be.

    Args:
        values: one for each of the n splits, two at least.
        test_to_train: prompts that are judged for each prompt that is learned from.
    """
    mean, count = float(np.mean(values)), len(values)
    error = float(np.std(values, ddof=1)) * (1 / count + test_to_train) ** 0.5
    if error < TINY:
        return {"difference": mean, "low": -1.0, "high": 1.0, "p_value": 1.0}
    margin = error * float(student.ppf((1 + confidence) / 2, count - 1))
    p_value = float(2 * student.sf(abs(mean) / error, count - 1))
    return {"difference": mean, "low": mean - margin, "high": mean + margin, "p_value": p_value}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family so that each can be held against the level that the whole family is to have.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    stepwise = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepwise), 1.0)
    return [float(value) for value in adjusted]
