"""On the balanced test prompts: all metrics, and paired differences from the arms that each is to be compared with."""

from typing import Any

import numpy as np

from pipeline.judging.arm import ArmId, nested
from pipeline.judging.judge import Judge
from pipeline.judging.metrics import METRICS
from pipeline.judging.scoreboard import Scoreboard

TFIDF = ArmId("tfidf")
CALIBRATION = ("brier", "calibration_error", "calibration_slope", "calibration_intercept")
ADVERSARIES = ("dense", "attention", "untrained")  # of the arm `sae`, at the same point


def balanced_metrics(board: Scoreboard) -> dict[str, Any]:
    """All metrics of the arms on all features, AUROC with its interval; and their differences from baselines.

    Calibration also of the scores after Platt scaling inside train: `brier_platt` and so on.
    """

    def of_one(arm: ArmId, scores: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = board.judge.metrics(scores[board.balanced], list(METRICS), ["auroc"])
        found |= calibration(board.judge, board.calibrated(arm)[board.balanced], "platt")
        return found | {f"minus_{other.name}": difference(board, arm, other) for other in baselines(arm)}

    return nested((arm, of_one(arm, scores)) for arm, scores in board.whole_arms())


def calibration(judge: Judge, scores: np.ndarray, suffix: str) -> dict[str, float]:
    """How well calibrated some changed scores are; the names end with what was done to them."""
    return {f"{name}_{suffix}": judge.value(name, scores) for name in CALIBRATION}


def baselines(arm: ArmId) -> list[ArmId]:
    """The arms whose AUROC is subtracted from that of `arm`."""
    found = [] if arm == TFIDF else [TFIDF]
    if arm.name == "sae":
        found += [ArmId(name, arm.points, arm.variant if name == "untrained" else None) for name in ADVERSARIES]
    return found


def difference(board: Scoreboard, arm: ArmId, baseline: ArmId) -> dict[str, float]:
    """Of AUROC on the balanced test prompts, paired."""
    return board.judge.difference(board.arms[arm][board.balanced], board.arms[baseline][board.balanced])


def k_aurocs(board: Scoreboard) -> dict[str, Any]:
    """AUROC of the arms on k features, by k, below the key of the arm on all features."""
    result: dict[str, Any] = {}
    for arm, scores in board.arms.items():
        if arm.k is not None:
            by_k = result.setdefault(arm.points_key, {}).setdefault(arm.of_all_features().key, {})
            by_k[str(arm.k)] = board.judge.value("auroc", scores[board.balanced])
    return result
