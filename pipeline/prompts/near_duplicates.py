"""Join prompts that say almost the same into groups."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.core.progress import progress
from pipeline.prompts.item_sets import PERMUTATIONS, ItemSets

RECALL = 0.999  # wanted chance that a pair exactly at the threshold becomes a candidate
PAIRS_AT_ONCE = 200_000


def near_duplicate_groups(
    sets: ItemSets, threshold: float, groups: np.ndarray | None = None, largest: int | None = None
) -> np.ndarray:
    """Return the group of each prompt, int64 (N). Near-duplicates have the same number.

    Two prompts are near-duplicates when the similarity of their sets is at least `threshold`. Groups are the connected
    components of that relation.

    Candidates come from MinHash LSH (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", section
    3.4): prompts with the same signature in a band share a bucket. Each candidate pair is then checked exactly, unless
    its prompts are in one group already. Where many prompts of different groups share a bucket, time grows with the
    square of their number; memory does not.

    Args:
        groups: int64 (N), groups to begin with. They grow, and none is divided. None: each prompt alone.
        largest: most prompts of a group that is joined of two. None: any number.
    """
    prompts = len(sets)
    groups = np.arange(prompts) if groups is None else groups
    bands, rows = _bands_and_rows(threshold)
    buckets = [_buckets(sets.signatures[:, start : start + rows]) for start in range(0, bands * rows, rows)]
    candidates = sum(int((sizes * (sizes - 1) // 2).sum()) for sizes in map(np.bincount, buckets))
    with progress(candidates, "near-duplicates", "pair") as bar:
        for bucket in buckets:
            waiting = np.arange(prompts)
            while len(waiting):
                apart = groups if largest is None else _that_may_join(groups, largest)
                left, right, waiting, settled = _next_pairs(waiting, bucket, apart)
                near, similarity = sets.similar(left, right, threshold)
                if largest is None:
                    groups = join(groups, left[near], right[near])
                else:
                    groups = _join_up_to(groups, left[near], right[near], similarity, largest)
                bar.update(settled)
    return groups


def _buckets(band: np.ndarray) -> np.ndarray:
    """Return the bucket of each row of a band, int64 (N): the same for equal rows, and very rarely for others."""
    mixed = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return np.unique(mixed, return_inverse=True)[1].ravel()


def join(groups: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return `groups` after merging the groups of each pair of prompts, numbered by their first prompts."""
    count = int(groups.max()) + 1
    graph = coo_array((np.ones(len(left), dtype=np.int8), (groups[left], groups[right])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)[groups]


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


def _that_may_join(groups: np.ndarray, largest: int) -> np.ndarray:
    """Return `groups` with all that are more than half of `largest` as one: no two of these may be merged."""
    sizes = np.bincount(groups)[groups]
    full = 2 * sizes > largest
    return np.where(full, groups[full.argmax()], groups)


def _join_up_to(
    groups: np.ndarray, left: np.ndarray, right: np.ndarray, similarity: np.ndarray, largest: int
) -> np.ndarray:
    """Merge the groups of the most similar pairs first, and not those that would have more than `largest` prompts."""
    ends = np.sort(np.stack([groups[left], groups[right]]), axis=0)
    order = np.lexsort((ends[1], ends[0], -similarity))
    _, first = np.unique(ends[:, order], axis=1, return_index=True)
    now = list(range(int(groups.max()) + 1))
    sizes = np.bincount(groups).tolist()
    for a, b in ends[:, order[np.sort(first)]].T.tolist():
        one, other = _root(now, a), _root(now, b)
        if one != other and sizes[one] + sizes[other] <= largest:
            now[max(one, other)] = min(one, other)
            sizes[min(one, other)] = sizes[one] + sizes[other]
    return np.array([_root(now, number) for number in range(len(now))])[groups]


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _bands_and_rows(threshold: float) -> tuple[int, int]:
    """Return the most selective banding whose recall at the threshold, 1 - (1 - t^rows)^bands, is at least RECALL."""
    rows = 1
    while 1 - (1 - threshold ** (rows + 1)) ** (PERMUTATIONS // (rows + 1)) >= RECALL:
        rows += 1
    return PERMUTATIONS // rows, rows
