"""Probabilities that can be taken at their word: Platt scaling, learned from out-of-fold scores of train prompts.

Platt 1999, "Probabilistic outputs for support vector machines". What an arm says of prompts that it learned from is too
sure; out-of-fold scores are not. It is what scikit-learn's `CalibratedClassifierCV(ensemble=False)` does.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pipeline.judging.metrics import log_odds


class Platt(NamedTuple):
    """Calibrated log odds = slope * log odds + intercept."""

    slope: float
    intercept: float

    def __call__(self, scores: np.ndarray, prior_log_odds: float = 0.0) -> np.ndarray:
        """Calibrate probabilities (N). prior_log_odds: added, where targets are rarer than where this was learned."""
        return np.asarray(expit(self.slope * log_odds(scores) + self.intercept + prior_log_odds))


def platt(scores: np.ndarray, labels: np.ndarray) -> Platt:
    """Learn the scaling from out-of-fold probabilities (n) and labels (n) bool, of both classes.

    Outcomes are not quite 0 and 1 (Platt's section 2.2), so that there is a solution where scores make no error.
    """
    targets, others = int(labels.sum()), int((~labels).sum())
    outcome = np.where(labels, (targets + 1) / (targets + 2), 1 / (others + 2))
    x = np.concatenate([log_odds(scores)] * 2)[:, None]
    one_and_zero = np.arange(len(x)) < len(scores)  # each prompt is there as a target and as another, in parts
    regression = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        x, one_and_zero, np.concatenate([outcome, 1 - outcome])
    )
    return Platt(float(regression.coef_[0, 0]), float(regression.intercept_[0]))
