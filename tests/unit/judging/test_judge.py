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

from pipeline.core.statistics import effective_number
from pipeline.judging.bootstrap import GroupErrors, group_resamples
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


def coverage(sizes: list[int], simulations: int) -> float:
    """How often the interval covers the truth, on made test sets whose two classes have groups of these sizes.

    Scores are the same in a group, from a pair of normals whose AUROC is Phi(1 / sqrt 2).
    """
    rng = np.random.default_rng(0)
    truth, covered = 0.76025, 0
    groups = np.repeat(np.arange(2 * len(sizes)), sizes * 2)
    labels = groups < len(sizes)
    for seed in range(simulations):
        judge = Judge(labels, groups, resamples=200, confidence=0.9, seed=seed)
        found = judge.metrics((labels + rng.normal(size=2 * len(sizes))[groups]).astype(float), ["auroc"], ["auroc"])
        covered += found["auroc_low"] <= truth <= found["auroc_high"]
    return covered / simulations


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    assert 0.85 <= coverage([1] * 100, 200) <= 0.96


def test_intervals_cover_the_truth_where_two_groups_are_a_third_of_a_class() -> None:
    assert 0.86 <= coverage([30, 25, *[1] * 110], 200) <= 0.97, "percentiles of the bootstrap cover 0.82"


def test_the_effective_number_of_groups_is_that_of_equal_ones() -> None:
    assert effective_number(np.array([3, 3, 3])) == pytest.approx(3)
    assert effective_number(np.array([1000, 1, 1])) == pytest.approx(1, abs=0.01)
    assert effective_number(np.array([])) == 0
    labels = np.array([True] * 6 + [False] * 6)
    errors = GroupErrors.of(labels, np.array([*"aabbcc", *"defghi"]))
    assert errors.groups == pytest.approx(3), "of the class that has fewer"
    assert errors.inflation == pytest.approx((3 / 2) ** 0.5), "a variance of 3 means is divided by 2, not by 3"


def test_p_values_agree_with_the_interval() -> None:
    errors = GroupErrors(30.0, 1.1)
    resampled = np.random.default_rng(0).normal(0.1, 0.05, 1000)
    for confidence in (0.5, 0.9, 0.99):
        margin = errors.margin(resampled, confidence)
        assert errors.p_value(margin, resampled) == pytest.approx(1 - confidence)
    assert errors.p_value(0.0, resampled) == 1
    assert errors.p_value(0.1, np.full(10, 0.1)) == 0, "every resample says so"


def test_intervals_stay_between_0_and_1_and_are_wide_where_nothing_is_known() -> None:
    errors = GroupErrors(20.0, 1.0)
    low, high = errors.interval(0.99, np.random.default_rng(0).normal(0.99, 0.05, 500), 0.95)
    assert 0 < low < 0.99 < high < 1
    low, high = errors.interval(1.0, np.ones(500), 0.95)
    assert high == 1 and low == pytest.approx(0.025 ** (1 / 20)), "20 right of 20 shows no more than that"
    assert errors.interval(0.0, np.zeros(500), 0.95) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    alone = GroupErrors.of(np.array([True] * 5 + [False] * 5), np.array(["a"] * 5 + [*"bcdef"]))
    assert alone.interval(0.8, np.linspace(0.7, 0.9, 99), 0.95) == (0.0, 1.0)
    assert alone.interval(0.8, np.full(99, 0.8), 0.95) == (0.0, 1.0), "however alike the resamples are"
    assert alone.p_value(0.2, np.linspace(0.1, 0.3, 99)) == 1, "one group of targets says nothing of others"


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
