"""Intervals and paired tests from a bootstrap over near-duplicate groups, corrected for few and unequal groups.

The bootstrap gives standard errors. Where a few groups hold much of a class, its own percentiles are too close
together (`python -m bench.coverage` measures how often they cover the truth). So its standard errors are corrected, and
intervals are Student's t.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from pipeline.core.statistics import effective_number


def group_resamples(groups: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how often each prompt is in each resample, int64 (resamples, N).

    Whole groups are drawn with replacement, as many as there are, because prompts of a group are not
    independent (cluster bootstrap: Field & Welsh 2007).
    """
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(draws[:, member])


@dataclass(frozen=True)
class GroupErrors:
    """How far standard errors of a bootstrap over groups can be believed."""

    groups: float
    """The effective number of groups, in the class where it is smaller."""
    inflation: float
    """Factor of the standard errors. A mean over groups takes away a part of the variance of their deviations from it;
    the variance is to be multiplied by 1 / (1 - 2 sum p^3 / sum p^2 + sum p^2) for groups with shares p (Bell &
    McCaffrey 2002), and the standard error by the root of that."""

    @classmethod
    def of(cls, labels: np.ndarray, groups: np.ndarray) -> "GroupErrors":
        """Of prompts with labels (N) in groups (N); the less favourable class decides."""
        numbers, factors = [], []
        for label in (True, False):
            share = np.unique(groups[labels == label], return_counts=True)[1] / max((labels == label).sum(), 1)
            square, cube = float((share**2).sum()), float((share**3).sum())
            left = square - 2 * cube + square**2  # of what would be `square`
            numbers.append(effective_number(share))
            factors.append(np.sqrt(square / left) if left > 0 else np.inf)
        return cls(min(numbers), float(max(factors)))

    def margin(self, values: np.ndarray, confidence: float) -> float:
        """Return half the width of the interval around a statistic with these resampled values (R).

        Resamples without both classes (nan) are left out. The degrees of freedom are the effective number of groups
        less one (Carter, Schnepel & Steigerwald 2017); infinite where there are not two.
        """
        if not self._are_enough():
            return np.inf
        return self._error(values) * float(student.ppf((1 + confidence) / 2, self.groups - 1))

    def p_value(self, difference: float, values: np.ndarray) -> float:
        """Return the two-sided p-value of a difference against 0, from its resampled values (R)."""
        if difference == 0 or not self._are_enough():
            return 1.0
        error = self._error(values)
        return float(2 * student.sf(abs(difference) / error, self.groups - 1)) if error else 0.0

    def _are_enough(self) -> bool:
        return self.groups >= 2 and np.isfinite(self.inflation)

    def _error(self, values: np.ndarray) -> float:
        return float(np.nanstd(values, ddof=1)) * self.inflation

    def interval(self, value: float, values: np.ndarray, confidence: float) -> tuple[float, float]:
        """Return the interval of a metric between 0 and 1, symmetric in its logit, so that it stays inside.

        At 0 or 1, where a bootstrap sees no variance at all: the exact binomial bound (Clopper & Pearson 1934) of as
        many independent prompts as there are effective groups.
        """
        if np.isnan(value):
            return np.nan, np.nan
        if value in (0.0, 1.0):
            bound = ((1 - confidence) / 2) ** (1 / max(self.groups, 1.0))
            return (0.0, 1 - bound) if value == 0 else (bound, 1.0)
        margin = self.margin(values, confidence) / (value * (1 - value))
        if not np.isfinite(margin):
            return 0.0, 1.0
        odds = value / (1 - value)
        low, high = odds * np.exp(-margin), odds * np.exp(margin)
        return float(low / (1 + low)), float(high / (1 + high)) if np.isfinite(high) else 1.0
