"""The balanced classification task that every arm gets: the same prompts, labels and folds."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.prompts.draw import draw_key

Negatives = Literal["even", "natural"]


@dataclass(frozen=True)
class Part:
    """One side of the task. labels: bool (N), true for the target; groups: near-duplicate group of each prompt."""

    prompt_ids: list[str]
    prompts: list[str]
    labels: np.ndarray
    groups: np.ndarray


def balanced_task(
    prompts: pa.Table,
    splits: pa.Table,
    *,
    target: int,
    negatives: Negatives,
    min_class_prompts: int,
    seed: int,
) -> tuple[Part, Part]:
    """The train and test part: all prompts of cluster `target`, and as many others.

    Args:
        prompts: columns prompt_id, prompt, cluster; splits: prompt_id, group, split.
        negatives: `even` draws the others evenly over their clusters (a cluster with too few gives all it has,
            the rest is made up by the others), `natural` in proportion to them.
        min_class_prompts: fewest prompts that a class may have in a part.

    Raises: UserError when a class has too few prompts.
    """
    side_of = {row["prompt_id"]: row for row in splits.to_pylist()}
    rows = [row | side_of[row["prompt_id"]] for row in prompts.to_pylist()]
    train, test = (
        _balanced([row for row in rows if row["split"] == side], side, target, negatives, min_class_prompts, seed)
        for side in ("train", "test")
    )
    return train, test


def _balanced(rows: list[dict[str, Any]], side: str, target: int, negatives: Negatives, fewest: int, seed: int) -> Part:
    rows = sorted(rows, key=lambda row: draw_key(seed, "balance", row["prompt_id"]))
    positive = [row for row in rows if row["cluster"] == target]
    others = [row for row in rows if row["cluster"] != target]
    size = min(len(positive), len(others))
    if size < fewest:
        scarce = f"{len(positive)} prompts of cluster {target} and {len(others)} others"
        raise UserError(
            f"the {side} part has {scarce}; probe.min_class_prompts = {fewest} of each are needed: "
            "use more data, raise filter.max_prompts, or choose another probe.target"
        )
    if negatives == "even":
        others = _evenly(others)
    chosen = sorted(positive[:size] + others[:size], key=lambda row: row["prompt_id"])
    return Part(
        [row["prompt_id"] for row in chosen],
        [row["prompt"] for row in chosen],
        np.array([row["cluster"] == target for row in chosen]),
        np.array([row["group"] for row in chosen]),
    )


def _evenly(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reorder so that every beginning of the list is as even over clusters as can be: round after round, one each."""
    rounds: list[tuple[int, int]] = []
    seen: dict[int, int] = {}
    for row in rows:
        seen[row["cluster"]] = seen.get(row["cluster"], 0) + 1
        rounds.append((seen[row["cluster"]], row["cluster"]))
    return [rows[index] for index in sorted(range(len(rows)), key=lambda index: rounds[index])]
