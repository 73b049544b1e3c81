"""Divide prompts into train and test by group, with clusters and sources in proportion."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.errors import UserError
from pipeline.core.statistics import effective_number
from pipeline.prompts.draw import draw_key
from pipeline.prompts.groups import Groups, group_prompts
from pipeline.prompts.nearest import Nearest, nearest_train

SMALL_GROUP = 5  # prompts; a group of as many may always be in test


def split_prompts(
    prompts: pa.Table, *, test_fraction: float, seeds: Sequence[int], **grouping: Any
) -> tuple[pa.Table, dict[str, Any]]:
    """Give every prompt a group, and a side for each seed.

    Args:
        prompts: columns prompt_id, prompt, source, cluster.
        test_fraction: share of the prompts of every (cluster, source) that goes to test, as nearly as whole groups
            allow.
        seeds: one split for each.
        grouping: see `group_prompts`.

    Raises: UserError when a side would have no prompts.
    Returns: a table in the order of `prompts`, and counts for the metrics, of the first seed. The table's columns are
        prompt_id: as in `prompts`.
        group: the smallest id of the prompts that stay together.
        split: `train` or `test`, for the first seed.
        split_SEED: the same for each further seed.
        nearest: similarity of a test prompt to the nearest train prompt, 0 to 1, null for train; for the first seed.
        nearest_SEED: the same for each further seed.
        template: the smallest id of the prompts with the same frame, null for a prompt of none.
    """
    if not len(prompts):
        raise UserError("no prompts are left to split: lower filter.min_chars, or use more data")
    rows = prompts.sort_by("prompt_id").to_pylist()
    found = group_prompts([row["prompt"] for row in rows], **grouping)
    ids = np.array([row["prompt_id"] for row in rows])
    names = ids[_first_of(found.numbers)]
    members: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, row in zip(names.tolist(), rows, strict=True):
        members[name].append(row)

    columns: dict[str, Any] = {"prompt_id": ids, "group": names}
    last: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for seed in seeds:
        test = np.isin(names, sorted(_draw_test_groups(members, test_fraction, seed)))
        _check_sides(test, seed)
        nearest = nearest_train(found, test)
        suffix = "" if seed == seeds[0] else f"_{seed}"
        columns[f"split{suffix}"] = np.where(test, "test", "train")
        last[f"nearest{suffix}"] = pa.array(nearest.similarity, mask=~test)
        counts = counts or _counts(rows, found, names, test, nearest, seed)
    last["template"] = pa.array(ids[_first_of(found.templates)], mask=found.templates < 0)
    place = {prompt_id: row for row, prompt_id in enumerate(ids.tolist())}
    order = [place[prompt_id] for prompt_id in prompts["prompt_id"].to_pylist()]
    return pa.table(columns | last).take(order), counts


def _check_sides(test: np.ndarray, seed: int) -> None:
    for side, there in (("train", ~test), ("test", test)):
        if not there.any():
            raise UserError(
                f"the split of seed {seed} leaves no prompts for {side}: use more data, change split.test_fraction, or "
                "loosen what keeps prompts together (split.near_duplicate, same_words, template_words)"
            )


def _first_of(numbers: np.ndarray) -> np.ndarray:
    """Return for each row the first one with the same number."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first[inverse.ravel()]


def _counts(
    rows: list[dict[str, Any]], found: Groups, names: np.ndarray, test: np.ndarray, nearest: Nearest, seed: int
) -> dict[str, Any]:
    """Return what `metrics/split.json` holds, of one split. Groups above the limit are copies or one template."""
    clusters = np.array([row["cluster"] for row in rows])
    sizes = np.unique(names, return_counts=True)[1]
    sides = np.where(test, "test", "train").tolist()
    labels = defaultdict(set)
    for name, row in zip(names.tolist(), rows, strict=True):
        labels[name].add(row["cluster"])
    return {
        "prompts": Counter(sides),
        "groups": len(sizes),
        "groups_of_several": int((sizes > 1).sum()),
        "largest_group": int(sizes.max()),
        "groups_with_conflicting_clusters": sum(len(each) > 1 for each in labels.values()),
        "templates": len(np.unique(found.templates[found.templates >= 0])),
        "joined_by": found.joined_by,
        "cut": {
            "limit": found.largest,
            "chains": len(found.chains),
            "prompts": sum(found.chains),
            "parts": found.parts,
            "groups_above_limit": int((sizes > found.largest).sum()),
        },
        "test": {
            "effective_groups": _effective(names[test]),
            "effective_groups_by_cluster": {
                str(cluster): _effective(names[test & (clusters == cluster)]) for cluster in np.unique(clusters)
            },
            "with_near_duplicate_in_train": int(nearest.is_near.sum()),
            "nearest_train_quintiles": np.quantile(nearest.similarity[test], [0.2, 0.4, 0.6, 0.8]).tolist(),
        },
        "leak_of_a_random_split": _leak(names, int(test.sum()), seed),
        "test_share_by_cluster": _test_shares(rows, sides, "cluster"),
        "test_share_by_source": _test_shares(rows, sides, "source"),
    }


def _effective(names: np.ndarray) -> float:
    """Return the effective number of groups of prompts with these groups."""
    return effective_number(np.unique(names, return_counts=True)[1])


def _leak(groups: np.ndarray, test_prompts: int, seed: int) -> dict[str, float]:
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
    sources together get their share. A group that would take more than a tenth of a quota stays in train: whatever is
    measured on a test side would be measured on its few templates.
    """
    strata: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in sorted(groups, key=lambda name: draw_key(seed, "split", name)):
        # of equally common ones the first by prompt id, so that names of sources decide nothing
        counted = Counter((row["cluster"], row["source"]) for row in sorted(groups[name], key=_prompt_id))
        strata[counted.most_common(1)[0][0]].append(name)
    test = set()
    room: dict[int, float] = defaultdict(float)
    for (cluster, _), names in sorted(strata.items(), key=lambda item: (-len(item[1]), item[1][0])):
        quota = test_fraction * sum(len(groups[name]) for name in names)
        room[cluster] += quota
        for name in names:
            # half of a group over the quota is as near to it as half under
            if len(groups[name]) <= max(SMALL_GROUP, quota / 10) and len(groups[name]) / 2 <= room[cluster]:
                test.add(name)
                room[cluster] -= len(groups[name])
    return test


def _prompt_id(row: dict[str, Any]) -> str:
    return str(row["prompt_id"])


def _test_shares(rows: list[dict[str, Any]], sides: list[str], column: str) -> dict[str, float]:
    total = Counter(str(row[column]) for row in rows)
    test = Counter(str(row[column]) for row, side in zip(rows, sides, strict=True) if side == "test")
    return {value: test[value] / total[value] for value in sorted(total)}
