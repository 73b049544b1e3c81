"""Metrics of scores, for many weightings of the prompts at once, so that a bootstrap is one call.

Every function takes labels (N) bool, scores (N) and weights (R, N), where row r says how often each prompt is
in resample r, and returns (R) values; weights of 1 give the plain metric. They equal scikit-learn's metrics
with `sample_weight`, where it has them.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit

THRESHOLD = 0.5  # of the probability of the target, for F1 and accuracy
BINS = 10  # of probabilities, for calibration
EDGE = 2.0**-24  # probabilities nearer to 0 or 1 than this are taken for it
STEPS = 50  # of Newton's method; from 0, a fit that exists is found in about 10

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


def calibration_slope(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slope of a logistic regression of the label on the log odds of the probability (Cox 1958).

    1 is calibrated, less is over-confident. NaN where scores tell the classes apart without error, or are all the same.
    """
    return _recalibrated(labels, scores, weights)[1]


def calibration_intercept(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Intercept of the same regression: 0 is calibrated, less is too many targets expected."""
    return _recalibrated(labels, scores, weights)[0]


def bin_of(scores: np.ndarray) -> np.ndarray:
    """Which of the BINS each probability is in, (0, 0.1] and so on; 0 is in the first."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)


def log_odds(scores: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, those of 0 and 1 as far out as float32 can tell them from their neighbours."""
    return np.asarray(logit(np.clip(np.asarray(scores, dtype=np.float64), EDGE, 1 - EDGE)))


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
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
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


def _recalibrated(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and slope (R) of label ~ log odds by Newton's method; NaN where they do not exist."""
    x = log_odds(scores)
    offset, scale = x.mean(), x.std() or 1.0
    x = (x - offset) / scale
    intercept, slope = np.zeros((2, len(weights)))
    step = np.ones((2, len(weights)))
    for _ in range(STEPS):
        expected = expit(intercept[:, None] + slope[:, None] * x)
        residual, curvature = weights * (labels - expected), weights * expected * (1 - expected)
        c0, c1, c2 = curvature.sum(axis=1), curvature @ x, curvature @ np.square(x)
        g0, g1, determinant = residual.sum(axis=1), residual @ x, c0 * c2 - c1**2
        step = np.stack([_ratio(c2 * g0 - c1 * g1, determinant), _ratio(c0 * g1 - c1 * g0, determinant)])
        intercept, slope = intercept + step[0], slope + step[1]
    found = np.abs(step).max(axis=0) < 1e-6  # False for NaN
    slope = np.where(found, slope / scale, np.nan)
    return np.where(found, intercept - slope * offset, np.nan), slope


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """numerator / denominator, and `empty` where the denominator is 0."""
    return np.divide(
        numerator,
        denominator,
        out=np.full(np.shape(numerator), empty, dtype=np.float64),
        where=denominator != 0,
    )
