"""Measure how near test prompts are to train prompts."""

from dataclasses import dataclass

import numpy as np

from pipeline.core.progress import progress
from pipeline.prompts.groups import Groups


@dataclass(frozen=True)
class Nearest:
    """How near each test prompt is to the nearest train prompt. Both are 0 for train prompts."""

    similarity: np.ndarray
    """float64 (N), the largest similarity by any rule."""
    is_near: np.ndarray
    """bool (N), whether by some rule the two are near-duplicates."""


def nearest_train(groups: Groups, test: np.ndarray) -> Nearest:
    """Compare each prompt of `test`, bool (N), with all others, exactly."""
    rows, train = np.flatnonzero(test), np.flatnonzero(~test)
    found = Nearest(np.zeros(len(test)), np.zeros(len(test), dtype=bool))
    with progress(len(rows) * len(groups.rules), "nearest train prompts", "prompt") as bar:
        for sets, threshold in groups.rules.values():
            done = 0
            for part_of_all in sets.similarities(rows, train):
                best = part_of_all.max(axis=1, initial=0)
                part = rows[done : done + len(best)]
                found.similarity[part] = np.maximum(found.similarity[part], best)
                found.is_near[part] |= best >= threshold
                done += len(best)
                bar.update(len(best))
    return found
