"""What is to be learned from which prompts: the tasks that every arm gets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.judging.settings import FULL, NOISE, SCARCE, SHUFFLED, SHUFFLES, WITHOUT, Balancing, balanced
from pipeline.prompts.draw import draw_key
from pipeline.prompts.table import Prompts, largest_sources


@dataclass(frozen=True)
class Task:
    """One training set. train: rows of Prompts (n), none of them of test; labels: bool (n), what is learned; splits:
    its folds, as positions within train, inside and outside of each."""

    setting: str
    draw: int
    train: np.ndarray
    labels: np.ndarray
    splits: list[tuple[np.ndarray, np.ndarray]] | None = None


def tasks(
    prompts: Prompts,
    balancing: Balancing,
    *,
    scarce: Sequence[int],
    draws: int,
    noise: Sequence[float],
    folds: int,
) -> Iterator[Task]:
    """The balanced task, and what makes it harder.

    `shuffled`: its labels permuted, SHUFFLES times: whatever is fitted on them must be at chance on average.
    `scarce_N`: N of its train prompts, half of them targets. `noise_P`: P percent of the train labels flipped. Both are
    drawn `draws` times. `without_SOURCE`: no train prompts of that source, one of the largest, on whose test prompts it
    is to be judged.

    Sizes that train does not have, or that have too few near-duplicate groups for the folds, and sources without
    `balancing.fewest` train prompts of each class beside them, are left out.
    """
    train = balanced(prompts, "train", balancing)
    labels = prompts.labels[train]
    yield Task(FULL, 0, train, labels)
    for draw in range(SHUFFLES):
        permuted = np.random.default_rng([prompts.seed, draw]).permutation(labels)
        yield Task(SHUFFLED, draw, train, permuted)
    for size in scarce:
        for draw in range(draws if size < len(train) else 0):
            keys = [draw_key(prompts.seed, f"scarce {size} {draw}", prompts.ids[row]) for row in train]
            order = np.argsort(keys, kind="stable")
            halves = [order[labels[order] == label][: size // 2] for label in (True, False)]
            chosen = np.sort(np.concatenate(halves))
            if _groups(prompts, train[chosen]) >= folds:
                yield Task(f"{SCARCE}{size}", draw, train[chosen], labels[chosen])
    orders = [
        np.argsort([draw_key(prompts.seed, f"noise {draw}", prompts.ids[row]) for row in train], kind="stable")
        for draw in range(draws if noise else 0)
    ]
    for share in noise:
        for draw, order in enumerate(orders):
            flipped = labels.copy()
            first = order[: round(share * len(train))]
            flipped[first] = ~flipped[first]
            yield Task(f"{NOISE}{100 * share:g}", draw, train, flipped)
    for source in largest_sources(prompts):
        kept = prompts.sources[train] != source
        judged = prompts.test & (prompts.sources == source)
        both = min(np.bincount(labels[kept], minlength=2)) >= balancing.fewest
        enough = both and _groups(prompts, train[kept]) >= folds
        if enough and len(set(prompts.labels[judged])) == 2:
            yield Task(f"{WITHOUT}{source}", 0, train[kept], labels[kept])


def _groups(prompts: Prompts, rows: np.ndarray) -> int:
    """How many near-duplicate groups the rows of the class with fewer of them are in."""
    labels = prompts.labels[rows]
    return min(len(set(prompts.groups[rows[labels == label]])) for label in (True, False))
