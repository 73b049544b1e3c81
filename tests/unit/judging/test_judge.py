"""The judge: metrics that equal scikit-learn's, intervals that cover, paired differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_data import made
from scipy.special import expit, logit
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from pipeline.judging.bootstrap import group_resamples, interval, p_value
from pipeline.judging.judge import Judge
from pipeline.judging.metrics import EDGE, METRICS, value_of

REFERENCES = {
    "auroc": lambda y, s, w: reference.roc_auc_score(y, s, sample_weight=w),
    "average_precision": lambda y, s, w: reference.average_precision_score(y, s, sample_weight=w),
    "f1": lambda y, s, w: reference.f1_score(y, s >= 0.5, sample_weight=w),
    "accuracy": lambda y, s, w: reference.accuracy_score(y, s >= 0.5, sample_weight=w),
    "tpr_at_fpr_0.1%": lambda y, s, w: best_tpr(y, s, w, 0.001),
    "tpr_at_fpr_1%": lambda y, s, w: best_tpr(y, s, w, 0.01),
    "tpr_at_fpr_5%": lambda y, s, w: best_tpr(y, s, w, 0.05),
    "brier": lambda y, s, w: reference.brier_score_loss(y, s, sample_weight=w),
    "calibration_error": lambda y, s, w: binned_error(np.repeat(y, w), np.repeat(s, w)),
    "calibration_slope": lambda y, s, w: recalibration(np.repeat(y, w), np.repeat(s, w))[1],
    "calibration_intercept": lambda y, s, w: recalibration(np.repeat(y, w), np.repeat(s, w))[0],
}


def best_tpr(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, limit: float) -> float:
    fpr, tpr, _ = reference.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    return float(tpr[fpr <= limit + 1e-12].max())


def binned_error(labels: np.ndarray, scores: np.ndarray) -> float:
    observed, predicted = calibration_curve(labels, scores, n_bins=10)
    counts = [((scores > low / 10) | (low == 0)) & (scores <= (low + 1) / 10 + 1e-12) for low in range(10)]
    sizes = np.array([count.sum() for count in counts if count.any()])
    return float((np.abs(observed - predicted) * sizes).sum() / len(scores))


def recalibration(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the log odds without a penalty; NaN where no finite ones are best."""
    x = logit(np.clip(scores, EDGE, 1 - EDGE))
    targets, others = x[labels], x[~labels]
    if targets.min() >= others.max() or targets.max() <= others.min():
        return np.nan, np.nan
    found = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(x[:, None], labels)
    return float(found.intercept_[0]), float(found.coef_[0, 0])


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_metrics_equal_scikit_learns_with_ties_and_weights(name: str, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.random(40) < 0.4, [True, False])
    scores = rng.integers(0, levels, 42) / levels
    weights = np.vstack([rng.integers(0, 4, (3, 42)), np.ones((1, 42), dtype=int)])
    weights[:, -2:] = 1  # both classes in every resample
    found = METRICS[name](labels, scores, weights)
    assert found == pytest.approx([REFERENCES[name](labels, scores, row) for row in weights], nan_ok=True)


def test_whole_groups_are_resampled() -> None:
    groups = np.array(["a", "b", "a", "c", "c", "c"])
    weights = group_resamples(groups, 2000, seed=0)
    for name in "abc":
        members = weights[:, groups == name]
        assert (members == members[:, :1]).all()
    assert weights[:, [0, 1, 3]].sum(axis=1).tolist() == [3] * 2000
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """200 test sets from a known pair of normals, whose AUROC is Phi(1 / sqrt 2)."""
    rng = np.random.default_rng(0)
    truth, covered = 0.76025, 0
    for seed in range(200):
        labels = np.arange(200) < 100
        scores = rng.normal(labels.astype(float), 1.0)
        low, high = interval(METRICS["auroc"](labels, scores, group_resamples(np.arange(200), 200, seed)), 0.9)
        covered += low <= truth <= high
    assert 0.82 <= covered / 200 <= 0.96


def test_p_values_of_no_difference_are_large_and_of_a_clear_one_small() -> None:
    assert p_value(np.linspace(-1, 1, 999)) > 0.9
    assert p_value(np.linspace(0.1, 1, 999)) == pytest.approx(2 / 1000)


def test_a_difference_is_paired() -> None:
    prompts, features = made(400, 3)
    judge = Judge(prompts.labels, prompts.groups, resamples=300, confidence=0.95, seed=0)
    score, noise = features[:, 0], features[:, 1]
    same = judge.difference(score, score)
    assert same["difference"] == same["low"] == same["high"] == 0 and same["p_value"] == 1
    better = judge.difference(score, noise)
    assert 0 < better["low"] < better["difference"] < better["high"] and better["p_value"] < 0.05


def test_the_slope_of_calibration_says_how_over_confident_scores_are() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 1.5, 100_000)
    labels = rng.random(100_000) < expit(log_odds)
    for factor, shift in ((1.0, 0.0), (2.0, 0.0), (0.5, 1.0)):
        scores = expit(factor * log_odds + shift)
        assert value_of("calibration_slope", labels, scores) == pytest.approx(1 / factor, abs=0.03)
        assert value_of("calibration_intercept", labels, scores) == pytest.approx(-shift / factor, abs=0.03)
    assert np.isnan(value_of("calibration_slope", labels, labels.astype(float))), "no error at all"
    assert np.isnan(value_of("calibration_slope", labels, np.full(100_000, 0.5)))
