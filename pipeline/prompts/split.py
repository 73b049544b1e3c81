"""Dividing prompts into train and test by near-duplicate group, with clusters and sources in proportion."""

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa

from pipeline.prompts.draw import draw_key
from pipeline.prompts.near_duplicates import near_duplicate_groups


def split_prompts(
    prompts: pa.Table, *, test_fraction: float, near_duplicate: float, shingle_chars: int, seed: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Give every prompt a group and a side.

    Args:
        prompts: columns prompt_id, prompt, source, cluster.
        test_fraction: share of the prompts of every (cluster, source) that goes to test, as near as whole
            groups allow.
        near_duplicate, shingle_chars: see `near_duplicate_groups`.

    Returns: a table `prompt_id, group, split` in the order of `prompts`, where a group is called by the
        smallest id in it and split is `train` or `test`; and counts for the metrics.
    """
    rows = prompts.to_pylist()
    numbers = near_duplicate_groups([row["prompt"] for row in rows], near_duplicate, shingle_chars)
    members: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for number, row in zip(numbers.tolist(), rows, strict=True):
        members[number].append(row)
    groups = {min(row["prompt_id"] for row in group): group for group in members.values()}

    test = _draw_test_groups(groups, test_fraction, seed)
    name_of = {row["prompt_id"]: name for name, group in groups.items() for row in group}
    sides = ["test" if name_of[row["prompt_id"]] in test else "train" for row in rows]
    table = pa.table(
        {
            "prompt_id": prompts["prompt_id"],
            "group": [name_of[row["prompt_id"]] for row in rows],
            "split": sides,
        }
    )
    sizes = Counter(len(group) for group in groups.values())
    return table, {
        "prompts": Counter(sides),
        "groups": len(groups),
        "groups_of_several": len(groups) - sizes[1],
        "largest_group": max(sizes),
        "groups_with_conflicting_clusters": sum(len({row["cluster"] for row in g}) > 1 for g in groups.values()),
        "test_share_by_cluster": _test_shares(rows, sides, "cluster"),
        "test_share_by_source": _test_shares(rows, sides, "source"),
    }


def _draw_test_groups(groups: dict[str, list[dict[str, Any]]], test_fraction: float, seed: int) -> set[str]:
    """Fill each stratum's quota with randomly drawn groups; a group belongs to its commonest stratum.

    What a stratum leaves of its quota, or takes beyond it, passes to the next of the same cluster, so that many
    small sources together have their share.
    """
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in sorted(groups, key=lambda name: draw_key(seed, "split", name)):
        counted = Counter((row["cluster"], row["source"]) for row in groups[name])
        strata[max(counted, key=lambda key: (counted[key], key))].append(name)
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


def _test_shares(rows: list[dict[str, Any]], sides: list[str], column: str) -> dict[str, float]:
    total = Counter(str(row[column]) for row in rows)
    test = Counter(str(row[column]) for row, side in zip(rows, sides, strict=True) if side == "test")
    return {value: test[value] / total[value] for value in sorted(total)}
