"""The one judge: from the scores of all arms to metrics, intervals, paired differences and curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import precision_recall_curve, roc_curve

from pipeline.errors import UserError
from pipeline.probes.bootstrap import group_resamples, interval, p_value
from pipeline.probes.metrics import METRICS

CURVE_POINTS = 200  # of a drawn curve


@dataclass(frozen=True)
class Truth:
    """What is known of the judged prompts. labels (N) bool, groups (N): near-duplicate group."""

    prompt_ids: list[str]
    labels: np.ndarray
    groups: np.ndarray


class Judge:
    """Compares arms on one set of test prompts, with the same resamples for all of them."""

    def __init__(self, truth: Truth, *, resamples: int, confidence: float, seed: int) -> None:
        self.truth = truth
        self.confidence = confidence
        self.plain = np.ones((1, len(truth.labels)), dtype=np.int64)
        self.weights = group_resamples(truth.groups, resamples, seed)

    def metrics(self, scores: np.ndarray) -> dict[str, float]:
        """Each metric of an arm's scores (N), with `_low` and `_high` of its interval."""
        result = {}
        for name, metric in METRICS.items():
            result[name] = float(metric(self.truth.labels, scores, self.plain)[0])
            resampled = metric(self.truth.labels, scores, self.weights)
            result[f"{name}_low"], result[f"{name}_high"] = interval(resampled, self.confidence)
        return result

    def difference(self, scores: np.ndarray, baseline: np.ndarray, metric: str = "auroc") -> dict[str, float]:
        """The paired difference of a metric, scores minus baseline, with interval and p-value."""
        function = METRICS[metric]
        labels = self.truth.labels
        resampled = function(labels, scores, self.weights) - function(labels, baseline, self.weights)
        low, high = interval(resampled, self.confidence)
        return {
            "difference": float(function(labels, scores, self.plain)[0] - function(labels, baseline, self.plain)[0]),
            "low": low,
            "high": high,
            "p_value": p_value(resampled),
        }

    def aligned(self, scores: pa.Table) -> np.ndarray:
        """One arm's scores (N) in the order of the truth. Raise UserError unless they are of just these prompts."""
        by_id = dict(zip(scores["prompt_id"].to_pylist(), scores["score"].to_pylist(), strict=True))
        if by_id.keys() != set(self.truth.prompt_ids):
            raise UserError("an arm's scores are not of the test prompts: run 'dvc repro' to score them again")
        return np.array([by_id[prompt_id] for prompt_id in self.truth.prompt_ids])

    def roc(self, scores: np.ndarray) -> list[dict[str, float]]:
        """The ROC curve as rows of false and true positive rate."""
        fpr, tpr, _ = roc_curve(self.truth.labels, scores)
        return _thinned("fpr", fpr, "tpr", tpr)

    def precision_recall(self, scores: np.ndarray) -> list[dict[str, float]]:
        """The precision-recall curve as rows of recall and precision."""
        precision, recall, _ = precision_recall_curve(self.truth.labels, scores)
        return _thinned("recall", recall[::-1], "precision", precision[::-1])


def _thinned(x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> list[dict[str, Any]]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [{x_name: round(float(x[i]), 4), y_name: round(float(y[i]), 4)} for i in chosen]
