"""The one judge: from the scores of all arms to metrics, intervals, paired differences and curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from pipeline.judging.bootstrap import group_resamples, interval, p_value
from pipeline.judging.metrics import BINS, METRICS, bin_of

CURVE_POINTS = 100  # of a drawn curve


class Judge:
    """Compares arms on one set of prompts, with the same resamples for all of them.

    labels (N) bool, groups (N): near-duplicate group. Scores (N) are probabilities of the target.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray, *, resamples: int, confidence: float, seed: int) -> None:
        self.labels = labels
        self.confidence = confidence
        self.plain = np.ones((1, len(labels)), dtype=np.int64)
        self.weights = group_resamples(groups, resamples, seed)

    def value(self, metric: str, scores: np.ndarray) -> float:
        return float(METRICS[metric](self.labels, scores, self.plain)[0])

    def metrics(self, scores: np.ndarray, names: Sequence[str], intervals: Sequence[str]) -> dict[str, float]:
        """The named metrics of an arm's scores, those of `intervals` with `_low` and `_high`."""
        result = {}
        for name in names:
            result[name] = self.value(name, scores)
            if name in intervals:
                resampled = METRICS[name](self.labels, scores, self.weights)
                result[f"{name}_low"], result[f"{name}_high"] = interval(resampled, self.confidence)
        return result

    def difference(self, scores: np.ndarray, baseline: np.ndarray, metric: str = "auroc") -> dict[str, float]:
        """The paired difference of a metric, scores minus baseline, with interval and p-value."""
        function = METRICS[metric]
        resampled = function(self.labels, scores, self.weights) - function(self.labels, baseline, self.weights)
        low, high = interval(resampled, self.confidence)
        return {
            "difference": self.value(metric, scores) - self.value(metric, baseline),
            "low": low,
            "high": high,
            "p_value": p_value(resampled),
        }

    def roc(self, scores: np.ndarray) -> list[dict[str, float]]:
        """The ROC curve as rows of false and true positive rate."""
        fpr, tpr, _ = roc_curve(self.labels, scores)
        return _thinned("fpr", fpr, "tpr", tpr)

    def precision_recall(self, scores: np.ndarray) -> list[dict[str, float]]:
        """The precision-recall curve as rows of recall and precision."""
        precision, recall, _ = precision_recall_curve(self.labels, scores)
        return _thinned("recall", recall[::-1], "precision", precision[::-1])

    def reliability(self, scores: np.ndarray) -> list[dict[str, float]]:
        """The reliability diagram: mean probability, share of targets and prompts of each bin that has any."""
        rows = []
        for number in range(BINS):
            here = bin_of(scores) == number
            if here.any():
                rows.append(
                    {
                        "probability": round(float(scores[here].mean()), 4),
                        "share_of_targets": round(float(self.labels[here].mean()), 4),
                        "prompts": int(here.sum()),
                    }
                )
        return rows


def label_noise(labels: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """How often labels are wrong, from pairs of near-duplicates whose labels disagree.

    If each label is flipped with probability e, independently, and near-duplicates should have the same, a share
    2 e (1 - e) of the pairs disagrees; `error_rate` is that e. No classifier can be expected to be right more often
    than 1 - e on such prompts. NaN without pairs. Too low where exact duplicates that disagree were dropped before.
    """
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    targets = np.bincount(member, weights=labels)
    pairs = float((sizes * (sizes - 1) / 2).sum())
    disagreeing = float((targets * (sizes - targets)).sum())
    share = disagreeing / pairs if pairs else float("nan")
    return {"pairs": pairs, "disagreeing": disagreeing, "error_rate": (1 - max(1 - 2 * share, 0.0) ** 0.5) / 2}


def _thinned(x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> list[dict[str, Any]]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [{x_name: round(float(x[i]), 4), y_name: round(float(y[i]), 4)} for i in chosen]
