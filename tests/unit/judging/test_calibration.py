"""Probabilities at the natural prevalence, and those that were calibrated inside train."""

import numpy as np
import pytest
from boards import board_of
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from pipeline.core.errors import UserError
from pipeline.judging.arm import ArmId
from pipeline.judging.calibration import platt
from pipeline.judging.comparisons.balanced import balanced_metrics
from pipeline.judging.comparisons.subsets import natural

WORDS = ArmId("tfidf")
rng = np.random.default_rng(0)


def log_odds_of(labels: np.ndarray) -> np.ndarray:
    """True log odds, where there are as many targets as others."""
    return rng.normal(np.where(labels, 1.0, -1.0), np.sqrt(2.0))


def test_at_the_natural_prevalence_shifted_probabilities_are_calibrated() -> None:
    """Scores of classifiers that learned from as many targets as others, where one in five is a target."""
    labels, train = np.arange(20_000) % 5 == 0, np.arange(5000) % 5 == 0
    learned = {WORDS: log_odds_of(train)}
    board = board_of({WORDS: expit(log_odds_of(labels))}, labels, train_labels=train, out_of_fold=learned)
    found = natural(board)["text"]["tfidf"]
    assert found["calibration_error_shifted"] < 0.02 < 0.1 < found["calibration_error"]
    assert found["brier_shifted"] < found["brier"]
    assert found["calibration_slope"] == pytest.approx(1, abs=0.1)
    assert found["calibration_intercept"] == pytest.approx(np.log(1 / 4), abs=0.1)
    assert found["calibration_slope_shifted"] == pytest.approx(found["calibration_slope"])
    assert found["calibration_intercept_shifted"] == pytest.approx(0, abs=0.1)


def test_over_confidence_that_train_shows_out_of_fold_is_taken_off_test() -> None:
    """Log odds three times too large and moved by one, in test and out of fold."""
    labels, train = np.arange(20_000) % 2 == 0, np.arange(10_000) % 2 == 0
    learned = {WORDS: 3 * log_odds_of(train) + 1}
    board = board_of({WORDS: expit(3 * log_odds_of(labels) + 1)}, labels, train_labels=train, out_of_fold=learned)
    for found in (balanced_metrics(board)["text"]["tfidf"], natural(board)["text"]["tfidf"]):
        assert found["calibration_slope"] == pytest.approx(1 / 3, abs=0.02)
        assert found["calibration_slope_platt"] == pytest.approx(1, abs=0.06)
        assert found["calibration_intercept_platt"] == pytest.approx(0, abs=0.06)
        assert found["calibration_error_platt"] < 0.02 < 0.1 < found["calibration_error"]
        assert found["brier_platt"] < found["brier"] - 0.02


def test_it_is_that_of_scikit_learn() -> None:
    features = rng.normal(size=(600, 20))
    labels = features[:, 0] + rng.normal(size=600) > 0
    classifier, folds = LogisticRegression(C=100), StratifiedKFold(5)
    theirs = CalibratedClassifierCV(classifier, method="sigmoid", cv=folds, ensemble=False).fit(features, labels)
    out_of_fold = cross_val_predict(classifier, features, labels, cv=folds, method="decision_function")
    ours = platt(expit(out_of_fold), labels)(classifier.fit(features, labels).predict_proba(features)[:, 1])
    np.testing.assert_allclose(ours, theirs.predict_proba(features)[:, 1], atol=2e-4)


@pytest.mark.parametrize("scores", [np.arange(20) / 20, np.r_[np.zeros(10), np.ones(10)], np.full(20, 0.3)])
def test_scores_without_error_or_without_difference_have_a_scaling(scores: np.ndarray) -> None:
    labels = np.arange(20) >= 10
    calibrated = platt(scores, labels)(scores)
    assert np.isfinite(calibrated).all() and (calibrated > 0).all() and (calibrated < 1).all()
    assert calibrated.mean() == pytest.approx(0.5, abs=0.01)
    assert (np.diff(calibrated) >= 0).all()


def test_an_arm_without_out_of_fold_scores_is_told() -> None:
    labels = np.arange(100) % 2 == 0
    board = board_of({WORDS: np.full(100, 0.5)}, labels, out_of_fold={ArmId("length"): np.zeros(600)})
    with pytest.raises(UserError, match="no out-of-fold logits of tfidf: run 'dvc repro'"):
        natural(board)
