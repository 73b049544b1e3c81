"""Divide prompts into train and test by near-duplicate group, with clusters and sources in proportion."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.prompts.draw import draw_key
from pipeline.prompts.near_duplicates import near_duplicate_groups


def split_prompts(
    prompts: pa.Table, *, test_fraction: float, near_duplicate: float, shingle_chars: int, seeds: Sequence[int]
) -> tuple[pa.Table, dict[str, Any]]:
    """Give every prompt a group, and a side for each seed.

    Args:
        prompts: columns prompt_id, prompt, source, cluster.
        test_fraction: share of the prompts of every (cluster, source) that goes to test, as nearly as whole groups
        allow.
        near_duplicate, shingle_chars: see `near_duplicate_groups`.

    Returns: a table in the order of `prompts`, and counts for the metrics, of the first seed. The table's columns are
        prompt_id: as in `prompts`.
        group: the smallest id of the prompts in the near-duplicate group.
        split: `train` or `test`, for the first seed.
        split_SEED: the same for each further seed.
    """
    rows = prompts.to_pylist()
    numbers = near_duplicate_groups([row["prompt"] for row in rows], near_duplicate, shingle_chars)
    members: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for number, row in zip(numbers.tolist(), rows, strict=True):
        members[number].append(row)
    groups = {min(row["prompt_id"] for row in group): group for group in members.values()}

    name_of = {row["prompt_id"]: name for name, group in groups.items() for row in group}
    columns: dict[str, Any] = {
        "prompt_id": prompts["prompt_id"],
        "group": [name_of[row["prompt_id"]] for row in rows],
    }
    for seed in seeds:
        test = _draw_test_groups(groups, test_fraction, seed)
        name = "split" if seed == seeds[0] else f"split_{seed}"
        columns[name] = ["test" if group in test else "train" for group in columns["group"]]
    sides = columns["split"]
    sizes = Counter(len(group) for group in groups.values())
    return pa.table(columns), {
        "prompts": Counter(sides),
        "groups": len(groups),
        "groups_of_several": len(groups) - sizes[1],
        "largest_group": max(sizes),
        "groups_with_conflicting_clusters": sum(len({row["cluster"] for row in g}) > 1 for g in groups.values()),
        "leak_of_a_random_split": _leak(columns["group"], sides.count("test"), seeds[0]),
        "test_share_by_cluster": _test_shares(rows, sides, "cluster"),
        "test_share_by_source": _test_shares(rows, sides, "source"),
    }


def _leak(groups: list[str], test_prompts: int, seed: int) -> dict[str, float]:
    """Return how many test prompts would have a near-duplicate in train without groups: mean of 20 such splits."""
    _, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    leaked = []
    for _ in range(20):
        test = np.zeros(len(groups), dtype=bool)
        test[rng.permutation(len(groups))[:test_prompts]] = True
        in_train = np.bincount(member[~test], minlength=member.max() + 1) > 0
        leaked.append(in_train[member[test]].sum())
    prompts = float(np.mean(leaked))
    return {"test_prompts": prompts, "share": prompts / max(test_prompts, 1)}


def _draw_test_groups(groups: dict[str, list[dict[str, Any]]], test_fraction: float, seed: int) -> set[str]:
    """Fill each stratum's quota with randomly drawn groups. A group belongs to its most frequent stratum.

    What a stratum leaves of its quota, or takes beyond it, passes to the next of the same cluster, so that many small
    sources together get their share.
    """
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in sorted(groups, key=lambda name: draw_key(seed, "split", name)):
        # of equally common ones the first by prompt id, so that names of sources decide nothing
        counted = Counter((row["cluster"], row["source"]) for row in sorted(groups[name], key=_prompt_id))
        strata[counted.most_common(1)[0][0]].append(name)
    test = set()
    room: dict[int, float] = defaultdict(float)
    for (cluster, _), names in sorted(strata.items(), key=lambda item: (-len(item[1]), item[1][0])):
        room[cluster] += test_fraction * sum(len(groups[name]) for name in names)
        for name in names:
            # half of a group over the quota is as near to it as half under
            if len(groups[name]) / 2 <= room[cluster]:
                test.add(name)
                room[cluster] -= len(groups[name])
    return test


def _prompt_id(row: dict[str, Any]) -> str:
    return str(row["prompt_id"])


def _test_shares(rows: list[dict[str, Any]], sides: list[str], column: str) -> dict[str, float]:
    total = Counter(str(row[column]) for row in rows)
    test = Counter(str(row[column]) for row, side in zip(rows, sides, strict=True) if side == "test")
    return {value: test[value] / total[value] for value in sorted(total)}
