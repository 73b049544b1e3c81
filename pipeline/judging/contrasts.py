"""The differences that the question is about, declared before any is computed, and tested as one family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.judging.arm import ArmId
from pipeline.judging.scoreboard import Scoreboard

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


def contrasts(board: Scoreboard, sae: ArmId, dense: Mapping[ArmId, float], confidence: float) -> dict[str, Any]:
    """Compare the arms of CONTRASTS, paired.

    Args:
        sae: the SAE's arm; the others are at its point and, where they have one, of its variant.
        dense: cross-validated AUROC of the dense arms of any kind at its point.
        confidence: 1 minus how often one or more of the family may be said to differ when none does.

    Returns: by name, `arm` and `baseline` as people call them, the difference with its interval, `p_value`, `p_holm`
        and the verdict that this gives: `better`, `worse` or `not shown`.
    """
    best = max(dense, key=lambda arm: dense[arm])

    def arm_of(name: str) -> ArmId:
        if name == BEST_DENSE:
            return best
        same = [ArmId(name), ArmId(name, sae.points), ArmId(name, sae.points, sae.variant)]
        return next(arm for arm in same if arm in board.arms)

    found: dict[str, Any] = {}
    for name, contrast in CONTRASTS.items():
        arm, baseline = arm_of(contrast.arm), arm_of(contrast.baseline)
        scores = (board.arms[each][board.balanced] for each in (arm, baseline))
        found[name] = {"arm": str(arm), "baseline": str(baseline)} | board.judge.difference(*scores)
    for each, adjusted in zip(found.values(), holm([each["p_value"] for each in found.values()]), strict=True):
        shown = adjusted <= 1 - confidence
        verdict = ("better" if each["difference"] > 0 else "worse") if shown else "not shown"
        each |= {"p_holm": adjusted, "verdict": verdict}
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family so that each can be held against the level that the whole family is to have.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    stepwise = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepwise), 1.0)
    return [float(value) for value in adjusted]
