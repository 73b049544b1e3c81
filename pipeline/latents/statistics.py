"""How often each latent is active, where, and what it adds to a classifier's decision."""

import numpy as np
from scipy import sparse

from pipeline.latents.firing import Firing


def density(firing: Firing, prompts: np.ndarray) -> np.ndarray:
    """The share of the counted tokens of some prompts, bool (N), on which each latent is active, float64 (L)."""
    tokens = np.repeat(prompts, np.diff(firing.offsets)) & firing.counted
    return _pattern(firing.tokens).T @ tokens.astype(np.float64) / tokens.sum()


def rates(firing: Firing, groups: np.ndarray) -> np.ndarray:
    """The share of the prompts of each group in which each latent is active, float64 (L, G).

    Args: groups: bool (N, G), which prompts are in each; a group without any has rates of 0.
    """
    return _pattern(firing.peaks).T @ groups.astype(np.float64) / np.maximum(groups.sum(axis=0), 1)


def spread(rates_LG: np.ndarray) -> np.ndarray:
    """How evenly each latent is active over G groups, float64 (L): the entropy of its rates divided by log G.

    The rates are scaled to a sum of 1 first. 0: active in one group alone, or in none; 1: in all at the same rate.
    """
    total = rates_LG.sum(axis=1, keepdims=True)
    shares = rates_LG / np.where(total > 0, total, 1)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    # rounding may leave it a little outside
    return np.clip(entropy / np.log(max(rates_LG.shape[1], 2)), 0, 1)


def mean_difference(firing: Firing, pooling: str, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean pooled value of each latent over some prompts, minus that over others, float64 (L).

    Args: some, others: bool (N), neither empty; pooling: of the values at a prompt's counted tokens.
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
    """1 where there are values."""
    return sparse.csc_array((np.ones_like(values.data), values.indices, values.indptr), shape=values.shape)
