"""The one table of all prompts: texts, clusters and sources, joined with their groups and sides."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.core.errors import UserError
from pipeline.prompts.draw import hold_out_groups

NO_CLUSTER = -1  # of harmless prompts
SOURCES = 30  # that are looked at one by one, where there may be thousands


@dataclass(frozen=True)
class Prompts:
    """All N prompts, by id. Arms compute features of all of them; tasks say which ones to learn from."""

    ids: list[str]
    texts: list[str]
    sources: np.ndarray
    clusters: np.ndarray
    groups: np.ndarray
    """(N), which prompts stay together on one side: those of the same group."""
    sides: np.ndarray
    """(N), `train`, `test` or `benign`."""
    target: int
    """The cluster to detect."""
    seed: int
    """Of the split, and of every draw from it."""
    templates: np.ndarray
    """(N), which prompts put other words into the same long frame. Empty for a prompt of no template."""
    nearest: np.ndarray
    """(N), similarity of each test prompt to the nearest train prompt, 0 to 1. NaN for all other prompts."""

    def some(self, rows: np.ndarray) -> "Prompts":
        """Return those of these rows, int (n), in this order."""
        names = ("sources", "clusters", "groups", "sides", "templates", "nearest")
        arrays = {name: getattr(self, name)[rows] for name in names}
        ids, texts = ([each[row] for row in rows] for each in (self.ids, self.texts))
        return replace(self, ids=ids, texts=texts, **arrays)

    @cached_property
    def text_of(self) -> dict[str, str]:
        """The texts, by prompt id."""
        return dict(zip(self.ids, self.texts, strict=True))

    @property
    def train(self) -> np.ndarray:
        """bool (N), which prompts are of train."""
        return np.asarray(self.sides == "train")

    @property
    def test(self) -> np.ndarray:
        """bool (N), which prompts are of test."""
        return np.asarray(self.sides == "test")

    @property
    def labels(self) -> np.ndarray:
        """bool (N), which prompts are of the target cluster."""
        return np.asarray(self.clusters == self.target)


def read_prompts(prompts: pa.Table, splits: pa.Table, benign: pa.Table, *, target: int, seed: int) -> Prompts:
    """Join all prompts of train and test, as `seed` split them, with the harmless ones.

    Args:
        prompts: columns prompt_id, prompt, source, cluster.
        splits: see `split_prompts`.
        benign: columns prompt_id, prompt, source.

    Raises: UserError when a group, or a text, is on both sides.
    """
    suffix = f"_{seed}" if f"split_{seed}" in splits.column_names else ""
    side_of = {row["prompt_id"]: row for row in splits.to_pylist()}
    rows = sorted(prompts.to_pylist(), key=lambda row: row["prompt_id"])
    sides: dict[tuple[str, str], str] = {}
    for row in rows:
        side = side_of[row["prompt_id"]][f"split{suffix}"]
        for what, value in (("group", side_of[row["prompt_id"]]["group"]), ("text", row["prompt"])):
            if sides.setdefault((what, value), side) != side:
                raise UserError(
                    f"prompt {row['prompt_id']} of {side} has the {what} of one on the other side of the split: "
                    "run 'dvc repro' to split again"
                )
    harmless = sorted(benign.to_pylist(), key=lambda row: row["prompt_id"])
    both = rows + harmless
    split = [side_of[row["prompt_id"]] for row in rows]
    return Prompts(
        [row["prompt_id"] for row in both],
        [row["prompt"] for row in both],
        np.array([row["source"] for row in both]),
        np.array([row["cluster"] for row in rows] + [NO_CLUSTER] * len(harmless)),
        np.array([row["group"] for row in split] + [row["prompt_id"] for row in harmless]),
        np.array([row[f"split{suffix}"] for row in split] + ["benign"] * len(harmless)),
        target,
        seed,
        np.array([row["template"] or "" for row in split] + [""] * len(harmless)),
        np.array([row[f"nearest{suffix}"] for row in split] + [None] * len(harmless), dtype=float),
    )


def largest_sources(prompts: Prompts) -> list[str]:
    """Return the sources with most train prompts, at most SOURCES of them, by name."""
    names, counts = np.unique(prompts.sources[prompts.train], return_counts=True)
    return sorted(names[np.argsort(-counts, kind="stable")[:SOURCES]].tolist())


def training_of_sae(prompts: Prompts, train_on: str, held_out_fraction: float) -> tuple[set[str], set[str]]:
    """Return ids of the train prompts that an SAE is trained on, and of those held back from it. None are of test.

    Args:
        train_on: `all` train prompts, those of the `target`, or those of `non_target`.
        held_out_fraction: share of their near-duplicate groups that is held back.
    """
    wanted = {"all": np.ones(len(prompts.ids), dtype=bool), "target": prompts.labels, "non_target": ~prompts.labels}
    rows = np.flatnonzero(prompts.train & wanted[train_on])
    held_out_groups = hold_out_groups(prompts.groups[rows].tolist(), held_out_fraction, prompts.seed)
    held_out = {prompts.ids[row] for row in rows if prompts.groups[row] in held_out_groups}
    return {prompts.ids[row] for row in rows} - held_out, held_out
