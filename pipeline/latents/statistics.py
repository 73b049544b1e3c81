"""How often each latent is active, on which prompts, and what it adds to a classifier's decision."""

import numpy as np
from scipy import sparse

from pipeline.latents.firing import Firing


def density(firing: Firing, prompts: np.ndarray) -> np.ndarray:
    """Return the share of counted tokens on which each latent is active, float64 (L).

    Args:
        prompts: bool (N), the prompts whose tokens are looked at.
    """
    tokens = np.repeat(prompts, np.diff(firing.offsets)) & firing.counted
    return _pattern(firing.tokens).T @ tokens.astype(np.float64) / tokens.sum()


def rates(firing: Firing, groups: np.ndarray) -> np.ndarray:
    """Return the share of the prompts of each group in which each latent is active, float64 (L, G).

    Args:
        groups: bool (N, G), which prompts are in each group. A group without prompts has rates of 0.
    """
    return _pattern(firing.peaks).T @ groups.astype(np.float64) / np.maximum(groups.sum(axis=0), 1)


def spread(rates_LG: np.ndarray) -> np.ndarray:
    """Return how evenly each latent is active over G groups, float64 (L).

    It is the entropy of the latent's rates, scaled to sum to 1, divided by log G. 0: active in at most one group; 1:
    active in all at the same rate.
    """
    total = rates_LG.sum(axis=1, keepdims=True)
    shares = rates_LG / np.where(total > 0, total, 1)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    # rounding may leave it a little outside
    return np.clip(entropy / np.log(max(rates_LG.shape[1], 2)), 0, 1)


def mean_difference(firing: Firing, pooling: str, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return each latent's mean pooled value over some prompts minus that over others, float64 (L).

    Args:
        pooling: `mean`, `max` or `last`, over a prompt's counted tokens.
        some, others: bool (N), neither of them empty.
    """
    share = some / some.sum() - others / others.sum()
    if pooling == "max":
        return np.asarray(firing.peaks.T @ share)
    starts = firing.offsets[:-1]
    if pooling == "mean":
        each = share / np.maximum(np.add.reduceat(firing.counted, starts, dtype=int), 1)
        of_tokens = firing.counted * np.repeat(each, np.diff(firing.offsets))
    else:
        last = np.maximum.reduceat(np.where(firing.counted, np.arange(len(firing.counted)), -1), starts)
        of_tokens = np.zeros(len(firing.counted))
        of_tokens[last[last >= 0]] = share[last >= 0]
    return np.asarray(firing.tokens.T @ of_tokens)


def _pattern(values: sparse.csc_array) -> sparse.csc_array:
    """Return 1 wherever there is a value."""
    return sparse.csc_array((np.ones_like(values.data), values.indices, values.indptr), shape=values.shape)
