"""Group prompts that say almost the same, so that no group is ever divided between train and test."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.core.progress import progress
from pipeline.prompts.shingles import ShingleSets

PERMUTATIONS = 128
RECALL = 0.999  # wanted chance that a pair exactly at the threshold becomes a candidate
PAIRS_AT_ONCE = 200_000


def near_duplicate_groups(prompts: list[str], threshold: float, shingle_chars: int) -> np.ndarray:
    """Return the group of each prompt, int64 (N). Near-duplicates have the same number.

    Two prompts are near-duplicates when the Jaccard similarity of their sets of character shingles is at least
    `threshold`; case and runs of white space are ignored. Groups are the connected components of that relation.

    Candidates come from MinHash LSH with a fixed seed (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive
    Datasets", section 3.4): prompts with the same signature in a band share a bucket. Each candidate pair is then
    checked exactly, unless its prompts are in one group already. Where many prompts of different groups share a bucket,
    time grows with the square of their number; memory does not.
    """
    sets = ShingleSets(prompts, shingle_chars, PERMUTATIONS)
    bands, rows = _bands_and_rows(threshold)
    buckets = [
        np.unique(sets.signatures[:, start : start + rows], axis=0, return_inverse=True)[1].ravel()
        for start in range(0, bands * rows, rows)
    ]
    candidates = sum(int((sizes * (sizes - 1) // 2).sum()) for sizes in map(np.bincount, buckets))
    groups = np.arange(len(prompts))
    with progress(candidates, "near-duplicates", "pair") as bar:
        for bucket in buckets:
            waiting = np.arange(len(prompts))
            while len(waiting):
                left, right, waiting, settled = _next_pairs(waiting, bucket, groups)
                near = sets.similar(left, right, threshold)
                groups = _join(groups, left[near], right[near])
                bar.update(settled)
    return groups


def _next_pairs(
    waiting: np.ndarray, bucket: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Pair some of the `waiting` prompts with all waiting ones of their bucket that are not in their group.

    Returns: the two sides of the pairs, who still waits, and how many pairs this settles, including those within
    groups.
    """
    prompts = len(groups)
    key = bucket[waiting] * prompts + groups[waiting]
    order = np.argsort(key, kind="stable")
    waiting, key = waiting[order], key[order]
    group_end = np.searchsorted(key, key, side="right")
    bucket_end = np.searchsorted(key, (key // prompts + 1) * prompts)
    # those of the bucket that follow a prompt's group are its partners: earlier ones have paired with it
    partners = bucket_end - group_end
    pairs = np.cumsum(partners)
    now = max(int(np.searchsorted(pairs, PAIRS_AT_ONCE, side="right")), 1)
    left = np.repeat(np.arange(now), partners[:now])
    right = np.arange(pairs[now - 1]) + (bucket_end - pairs)[left]
    settled = int((bucket_end[:now] - np.arange(now) - 1).sum())
    return waiting[left], waiting[right], waiting[now:], settled


def _join(groups: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return `groups` after merging the groups of each pair, numbered by their first prompts."""
    count = groups.max() + 1
    graph = coo_array((np.ones(len(left), dtype=np.int8), (groups[left], groups[right])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)[groups]


def _bands_and_rows(threshold: float) -> tuple[int, int]:
    """Return the most selective banding whose recall at the threshold, 1 - (1 - t^rows)^bands, is at least RECALL."""
    rows = 1
    while 1 - (1 - threshold ** (rows + 1)) ** (PERMUTATIONS // (rows + 1)) >= RECALL:
        rows += 1
    return PERMUTATIONS // rows, rows
