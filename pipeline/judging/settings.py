"""The settings in which arms are fitted and judged, and the balanced prompts that both sides of most of them take."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.core.errors import UserError
from pipeline.params.probe import ProbeParams
from pipeline.prompts.draw import draw_key
from pipeline.prompts.table import Prompts

Negatives = Literal["even", "natural"]
FULL, SHUFFLED = "balanced", "shuffled"
SHUFFLES = 5
# what the names of the other settings begin with, before a number or a source
SCARCE, NOISE, WITHOUT = "scarce_", "noise_", "without_"


@dataclass(frozen=True)
class Balancing:
    """Which prompts of a side are learned from, or judged, in most settings."""

    negatives: Negatives
    """Which others stand beside the targets: `even` draws them evenly over their clusters (a cluster with too few gives
    all it has, the rest is made up by the others), `natural` in proportion to them."""
    fewest: int
    """The prompts that a class must have."""
    group_limit: int | None = None
    """The prompts that a group of near-duplicates gives at most; None: all. Without a limit a few templates that are
    there a hundred times decide what is learned, and what is measured."""

    @classmethod
    def of(cls, params: ProbeParams) -> "Balancing":
        return cls(params.negatives, params.min_class_prompts, params.group_limit)


def balanced(prompts: Prompts, side: Literal["train", "test"], how: Balancing) -> np.ndarray:
    """Return the rows of one side that are balanced: all prompts of the target, and as many others; ascending.

    Raises: UserError when a class has too few.
    """
    here = np.flatnonzero(prompts.sides == side)
    here = here[np.argsort([draw_key(prompts.seed, "balance", prompts.ids[row]) for row in here], kind="stable")]
    if how.group_limit is not None:
        here = here[_place_in_group(prompts.groups[here]) < how.group_limit]
    positive, others = here[prompts.labels[here]], here[~prompts.labels[here]]
    size = min(len(positive), len(others))
    if size < how.fewest:
        scarce = f"{len(positive)} prompts of cluster {prompts.target} and {len(others)} others"
        raise UserError(
            f"the {side} part has {scarce}; probe.min_class_prompts = {how.fewest} of each are needed: "
            "lower it, use more data, raise filter.max_prompts or probe.group_limit, or choose another probe.target"
        )
    if how.negatives == "even":
        others = _evenly(others, prompts.clusters)
    return np.sort(np.concatenate([positive[:size], others[:size]]))


def _place_in_group(groups: np.ndarray) -> np.ndarray:
    """Return how many prompts of its group come before each, (n)."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], groups[order][1:] != groups[order][:-1]])) if len(groups) else order
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return place


def _evenly(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Reorder so that every beginning of the rows is as even over clusters as can be: round after round, one each."""
    seen: dict[Any, int] = {}
    rounds = []
    for row in rows:
        cluster = clusters[row]
        seen[cluster] = seen.get(cluster, 0) + 1
        rounds.append((seen[cluster], cluster))
    return rows[sorted(range(len(rows)), key=lambda number: rounds[number])]
