"""The one judge: from the scores of an arm to metrics, intervals, paired differences and curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from pipeline.judging.bootstrap import group_resamples, interval, p_value
from pipeline.judging.metrics import BINS, METRICS, bin_of, value_of

CURVE_POINTS = 100  # of a drawn curve


class Judge:
    """Compares arms on one set of prompts, with the same resamples for all of them.

    labels (N) bool, groups (N): near-duplicate group. Scores (N) are probabilities of the target.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray, *, resamples: int, confidence: float, seed: int) -> None:
        self.labels = labels
        self.confidence = confidence
        self.weights = group_resamples(groups, resamples, seed)

    def value(self, metric: str, scores: np.ndarray) -> float:
        return value_of(metric, self.labels, scores)

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


def _thinned(x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> list[dict[str, Any]]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [{x_name: round(float(x[i]), 4), y_name: round(float(y[i]), 4)} for i in chosen]
