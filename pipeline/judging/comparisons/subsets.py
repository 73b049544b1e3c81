"""Arms trained in the balanced setting, on other test prompts than the balanced ones."""

from typing import Any

import numpy as np
from scipy.special import expit, logit

from pipeline.judging.arm import ArmId, nested
from pipeline.judging.comparisons.balanced import CALIBRATION, calibration
from pipeline.judging.metrics import THRESHOLD, log_odds, value_of
from pipeline.judging.scoreboard import Scoreboard

AT_ANY_PREVALENCE = ("auroc", "average_precision", "tpr_at_fpr_0.1%", "tpr_at_fpr_1%", "tpr_at_fpr_5%")


def natural(board: Scoreboard) -> dict[str, Any]:
    """On all test prompts: the metrics that mean something at any prevalence, and calibration.

    Arms learned from as many targets as others, so their probabilities are too high where targets are rare.
    Names with `_shifted` are of probabilities whose log odds are shifted by those of a target among all train prompts,
    names with `_platt` of those that are calibrated before.
    """
    judge = board.judge_of(board.test)
    prior = float(logit(board.prompts.labels[board.prompts.train].mean()))

    def of_one(arm: ArmId, scores: np.ndarray) -> dict[str, float]:
        shifted, calibrated = expit(log_odds(scores) + prior), board.calibrated(arm, prior)
        return (
            judge.metrics(scores[board.test], (*AT_ANY_PREVALENCE, *CALIBRATION), ["average_precision"])
            | calibration(judge, shifted[board.test], "shifted")
            | calibration(judge, calibrated[board.test], "platt")
        )

    return nested((arm, of_one(arm, scores)) for arm, scores in board.whole_arms())


def harmless(board: Scoreboard) -> dict[str, Any]:
    """How often each arm takes a harmless prompt for the target, at the probability that accuracy and F1 take."""
    prompts = int((board.prompts.sides == "benign").sum())
    rates = (
        (arm, {"false_positive_rate": float((scores[len(board.test) :] >= THRESHOLD).mean())})
        for arm, scores in board.whole_arms()
        if prompts
    )
    return {"prompts": prompts} | nested(rates)


def by_cluster(board: Scoreboard) -> dict[str, Any]:
    """AUROC of the target against each other cluster alone, over all test prompts."""
    target = board.prompts.target
    clusters = board.prompts.clusters[board.test_rows(board.seed)]
    others = sorted(set(clusters.tolist()) - {target})
    positions = {other: np.flatnonzero((clusters == target) | (clusters == other)) for other in others}
    return nested(
        (arm, {str(other): value_of("auroc", clusters[at] == target, scores[at]) for other, at in positions.items()})
        for arm, scores in board.whole_arms()
        if others
    )
