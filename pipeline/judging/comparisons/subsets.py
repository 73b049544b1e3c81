"""Arms trained in the balanced setting, on other test prompts than the balanced ones."""

from typing import Any

import numpy as np

from pipeline.judging.arm import nested
from pipeline.judging.comparisons.balanced import TFIDF
from pipeline.judging.metrics import THRESHOLD, value_of
from pipeline.judging.scoreboard import Scoreboard

UNSURE = 0.2  # TF-IDF is unsure of prompts with a probability within this of THRESHOLD
AT_ANY_PREVALENCE = ("auroc", "average_precision", "tpr_at_fpr_0.1%", "tpr_at_fpr_1%", "tpr_at_fpr_5%")


def natural(board: Scoreboard) -> dict[str, Any]:
    """On all test prompts: the metrics that mean something at any prevalence."""
    judge = board.judge_of(board.test)
    return nested(
        (arm, judge.metrics(scores[board.test], AT_ANY_PREVALENCE, ["average_precision"]))
        for arm, scores in board.whole_arms()
    )


def harmless(board: Scoreboard) -> dict[str, Any]:
    """How often each arm takes a harmless prompt for the target, at the probability that accuracy and F1 take."""
    prompts = int((board.prompts.sides == "benign").sum())
    rates = (
        (arm, {"false_positive_rate": float((scores[len(board.test) :] >= THRESHOLD).mean())})
        for arm, scores in board.whole_arms()
        if prompts
    )
    return {"prompts": prompts} | nested(rates)


def where_tfidf_fails(board: Scoreboard) -> dict[str, Any]:
    """AUROC on the balanced test prompts of which TF-IDF is unsure, or wrong."""
    scores = board.arms[TFIDF][board.balanced]
    hard = (np.abs(scores - THRESHOLD) < UNSURE) | ((scores >= THRESHOLD) != board.judge.labels)
    labels = board.judge.labels[hard]
    counts = {"prompts": int(hard.sum()), "targets": int(labels.sum())}
    if len(set(labels)) < 2:
        return counts
    positions = board.balanced[hard]
    judge = board.judge_of(positions)
    return counts | nested(
        (arm, judge.metrics(scores[positions], ["auroc"], ["auroc"])) for arm, scores in board.whole_arms()
    )


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
