"""The settings in which arms are fitted and judged, and the balanced prompts that both sides of most of them take."""

from typing import Any, Literal

import numpy as np

from pipeline.core.errors import UserError
from pipeline.prompts.draw import draw_key
from pipeline.prompts.table import Prompts

Negatives = Literal["even", "natural"]
FULL, SHUFFLED = "balanced", "shuffled"
SHUFFLES = 5
# what the names of the other settings begin with, before a number or a source
SCARCE, NOISE, WITHOUT = "scarce_", "noise_", "without_"


def balanced(prompts: Prompts, side: Literal["train", "test"], negatives: Negatives, fewest: int) -> np.ndarray:
    """Rows of one side: all prompts of the target, and as many others; ascending.

    Args:
        negatives: `even` draws the others evenly over their clusters (a cluster with too few gives all it has,
            the rest is made up by the others), `natural` in proportion to them.
        fewest: prompts that a class must have.

    Raises: UserError when a class has fewer.
    """
    here = np.flatnonzero(prompts.sides == side)
    here = here[np.argsort([draw_key(prompts.seed, "balance", prompts.ids[row]) for row in here], kind="stable")]
    positive, others = here[prompts.labels[here]], here[~prompts.labels[here]]
    size = min(len(positive), len(others))
    if size < fewest:
        scarce = f"{len(positive)} prompts of cluster {prompts.target} and {len(others)} others"
        raise UserError(
            f"the {side} part has {scarce}; probe.min_class_prompts = {fewest} of each are needed: "
            "lower it, use more data, raise filter.max_prompts, or choose another probe.target"
        )
    if negatives == "even":
        others = _evenly(others, prompts.clusters)
    return np.sort(np.concatenate([positive[:size], others[:size]]))


def _evenly(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Reorder so that every beginning of the rows is as even over clusters as can be: round after round, one each."""
    seen: dict[Any, int] = {}
    rounds = []
    for row in rows:
        cluster = clusters[row]
        seen[cluster] = seen.get(cluster, 0) + 1
        rounds.append((seen[cluster], cluster))
    return rows[sorted(range(len(rows)), key=lambda number: rounds[number])]
