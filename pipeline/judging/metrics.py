"""Metrics of scores, for many weightings of the prompts at once, so that a bootstrap is one call.

Every function takes labels (N) bool, scores (N) and weights (R, N), where row r says how often each prompt is
in resample r, and returns (R) values; weights of 1 give the plain metric. They equal scikit-learn's metrics
with `sample_weight`.
"""

from collections.abc import Callable

import numpy as np

THRESHOLD = 0.5  # of the probability of the target, for F1 and accuracy
BINS = 10  # of probabilities, for calibration

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: how often a target outscores another prompt, ties counting half."""
    positive, negative = _by_score(labels, scores, weights)
    below = negative.cumsum(axis=1) - negative
    wins = (positive * (below + negative / 2)).sum(axis=1)
    return _ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))


def average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the gain in recall."""
    positive, negative = (part[:, ::-1] for part in _by_score(labels, scores, weights))
    true, false = positive.cumsum(axis=1), negative.cumsum(axis=1)
    return _ratio((positive * _ratio(true, true + false, 0.0)).sum(axis=1), true[:, -1])


def f1(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) at a probability of 0.5."""
    predicted = scores >= THRESHOLD
    true = weights @ (labels & predicted)
    wrong = weights @ (labels != predicted)
    return _ratio(2 * true, 2 * true + wrong, 0.0)


def accuracy(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of prompts on the right side of a probability of 0.5."""
    return _ratio(weights @ (labels == (scores >= THRESHOLD)), weights.sum(axis=1))


def tpr_at_fpr(limit: float) -> Metric:
    """The largest true positive rate of a threshold whose false positive rate is at most `limit`."""

    def metric(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        positive, negative = (part[:, ::-1].cumsum(axis=1) for part in _by_score(labels, scores, weights))
        allowed = negative <= limit * negative[:, -1:] + 1e-9
        return _ratio((positive * allowed).max(axis=1), positive[:, -1])

    return metric


def brier(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean squared difference of probability and outcome (Brier 1950)."""
    return _ratio(weights @ np.square(scores - labels), weights.sum(axis=1))


def calibration_error(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error: over 10 bins of equal width, the mean |share of targets - mean probability|.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    bins = bin_of(scores)[:, None] == np.arange(BINS)
    return _ratio(np.abs(weights @ (bins * (scores - labels)[:, None])).sum(axis=1), weights.sum(axis=1))


def bin_of(scores: np.ndarray) -> np.ndarray:
    """Which of the BINS each probability is in, (0, 0.1] and so on; 0 is in the first."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)


METRICS: dict[str, Metric] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "accuracy": accuracy,
    "f1": f1,
    "tpr_at_fpr_0.1%": tpr_at_fpr(0.001),
    "tpr_at_fpr_1%": tpr_at_fpr(0.01),
    "tpr_at_fpr_5%": tpr_at_fpr(0.05),
    "brier": brier,
    "calibration_error": calibration_error,
}


def value_of(metric: str, labels: np.ndarray, scores: np.ndarray) -> float:
    """The named metric with every prompt counted once; NaN where it is not defined."""
    return float(METRICS[metric](labels, scores, np.ones((1, len(labels)), dtype=np.int64))[0])


def _by_score(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weight of targets and of others at each distinct score, ascending: two (R, distinct) arrays."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0]))
    sorted_weights = weights[:, order].astype(np.float64)
    positive = np.add.reduceat(sorted_weights * labels[order], starts, axis=1)
    return positive, np.add.reduceat(sorted_weights, starts, axis=1) - positive


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """numerator / denominator, and `empty` where the denominator is 0."""
    return np.divide(
        numerator,
        denominator,
        out=np.full(np.shape(numerator), empty, dtype=np.float64),
        where=denominator != 0,
    )
