"""Intervals and paired tests by a bootstrap over near-duplicate groups."""

import numpy as np


def group_resamples(groups: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each prompt is in each resample, int64 (resamples, N).

    Whole groups are drawn with replacement, as many as there are, because prompts of a group are not
    independent (cluster bootstrap: Field & Welsh 2007).
    """
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(draws[:, member])


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval of resampled values (R), those without both classes left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of a resampled difference (R) against 0: never 0, since R resamples cannot show that."""
    differences = differences[~np.isnan(differences)]
    smaller_tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(2 * (smaller_tail + 1) / (len(differences) + 1), 1.0))
