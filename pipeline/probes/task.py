"""What is to be learned from which prompts: the tasks that every arm gets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.core.errors import UserError
from pipeline.prompts.draw import draw_key

Negatives = Literal["even", "natural"]
FULL, SHUFFLED = "balanced", "shuffled"
SHUFFLES = 5
NO_CLUSTER = -1  # of harmless prompts
SOURCES = 30  # that are looked at one by one, where there may be thousands


@dataclass(frozen=True)
class Prompts:
    """All prompts (N), by id. Arms make features of all of them; tasks say which of them to learn from.

    sources, clusters, groups (N): near-duplicate group; sides (N): train, test or benign; seed: of the split, and of
    every draw from it.
    """

    ids: list[str]
    texts: list[str]
    sources: np.ndarray
    clusters: np.ndarray
    groups: np.ndarray
    sides: np.ndarray
    target: int
    seed: int

    def some(self, rows: np.ndarray) -> "Prompts":
        """Those of these rows, int (n), in this order."""
        arrays = {name: getattr(self, name)[rows] for name in ("sources", "clusters", "groups", "sides")}
        ids, texts = ([each[row] for row in rows] for each in (self.ids, self.texts))
        return replace(self, ids=ids, texts=texts, **arrays)

    @property
    def train(self) -> np.ndarray:
        """Bool (N)."""
        return np.asarray(self.sides == "train")

    @property
    def test(self) -> np.ndarray:
        """Bool (N)."""
        return np.asarray(self.sides == "test")

    @property
    def labels(self) -> np.ndarray:
        """Whether a prompt is of the target cluster, bool (N)."""
        return np.asarray(self.clusters == self.target)


@dataclass(frozen=True)
class Task:
    """One training set. train: rows of Prompts (n), none of them of test; labels: bool (n), what is learned; splits:
    its folds, as places within train, inside and outside of each."""

    setting: str
    draw: int
    train: np.ndarray
    labels: np.ndarray
    splits: list[tuple[np.ndarray, np.ndarray]] | None = None


def read_prompts(prompts: pa.Table, splits: pa.Table, benign: pa.Table, *, target: int, seed: int) -> Prompts:
    """All prompts of train and test of the split that `seed` made, and the harmless ones.

    Args:
        prompts: columns prompt_id, prompt, source, cluster; splits: prompt_id, group, split, or split_SEED;
            benign: prompt_id, prompt, source.

    Raises: UserError when a group, or a text, is on both sides.
    """
    column = "split" if f"split_{seed}" not in splits.column_names else f"split_{seed}"
    side_of = {row["prompt_id"]: row for row in splits.to_pylist()}
    rows = sorted(prompts.to_pylist(), key=lambda row: row["prompt_id"])
    sides: dict[tuple[str, str], str] = {}
    for row in rows:
        side = side_of[row["prompt_id"]][column]
        for what, value in (("group", side_of[row["prompt_id"]]["group"]), ("text", row["prompt"])):
            if sides.setdefault((what, value), side) != side:
                raise UserError(
                    f"prompt {row['prompt_id']} of {side} has the {what} of one on the other side of the split: "
                    "run 'dvc repro' to split again"
                )
    harmless = sorted(benign.to_pylist(), key=lambda row: row["prompt_id"])
    both = rows + harmless
    return Prompts(
        [row["prompt_id"] for row in both],
        [row["prompt"] for row in both],
        np.array([row["source"] for row in both]),
        np.array([row["cluster"] for row in rows] + [NO_CLUSTER] * len(harmless)),
        np.array([side_of[row["prompt_id"]]["group"] for row in rows] + [row["prompt_id"] for row in harmless]),
        np.array([side_of[row["prompt_id"]][column] for row in rows] + ["benign"] * len(harmless)),
        target,
        seed,
    )


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
            "use more data, raise filter.max_prompts, or choose another probe.target"
        )
    if negatives == "even":
        others = _evenly(others, prompts.clusters)
    return np.sort(np.concatenate([positive[:size], others[:size]]))


def tasks(
    prompts: Prompts,
    negatives: Negatives,
    fewest: int,
    *,
    scarce: Sequence[int],
    draws: int,
    noise: Sequence[float],
    folds: int,
) -> Iterator[Task]:
    """The balanced task, and what makes it harder.

    `shuffled`: its labels permuted, SHUFFLES times: whatever is fitted on them must be at chance on average.
    `scarce_N`: N of its train prompts, half of them targets, `draws` times. `noise_P`: P percent of the train labels
    flipped. `without_SOURCE`: no train prompts of that source, one of the largest, on whose test prompts it is to be
    judged. Sizes that
    train does not have, or that have too few near-duplicate groups for the folds, and sources without `fewest` train
    prompts of each class beside them, are left out.
    """
    train = balanced(prompts, "train", negatives, fewest)
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
                yield Task(f"scarce_{size}", draw, train[chosen], labels[chosen])
    for share in noise:
        keys = [draw_key(prompts.seed, "noise", prompts.ids[row]) for row in train]
        flipped = labels.copy()
        first = np.argsort(keys, kind="stable")[: round(share * len(train))]
        flipped[first] = ~flipped[first]
        yield Task(f"noise_{100 * share:g}", 0, train, flipped)
    for source in largest_sources(prompts):
        kept = prompts.sources[train] != source
        judged = prompts.test & (prompts.sources == source)
        enough = min(np.bincount(labels[kept], minlength=2)) >= fewest and _groups(prompts, train[kept]) >= folds
        if enough and len(set(prompts.labels[judged])) == 2:
            yield Task(f"without_{source}", 0, train[kept], labels[kept])


def largest_sources(prompts: Prompts) -> list[str]:
    """The sources with most train prompts, at most SOURCES of them, by name."""
    names, counts = np.unique(prompts.sources[prompts.train], return_counts=True)
    return sorted(names[np.argsort(-counts, kind="stable")[:SOURCES]].tolist())


def _groups(prompts: Prompts, rows: np.ndarray) -> int:
    """How many near-duplicate groups the rows of the class with fewer of them are in."""
    labels = prompts.labels[rows]
    return min(len(set(prompts.groups[rows[labels == label]])) for label in (True, False))


def _evenly(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Reorder so that every beginning of the rows is as even over clusters as can be: round after round, one each."""
    seen: dict[Any, int] = {}
    rounds = []
    for row in rows:
        cluster = clusters[row]
        seen[cluster] = seen.get(cluster, 0) + 1
        rounds.append((seen[cluster], cluster))
    return rows[sorted(range(len(rows)), key=lambda place: rounds[place])]
