"""Made-up prompts and features for tests of the probes."""

import numpy as np

from pipeline.judging.settings import FULL, Balancing, balanced
from pipeline.probes.fit import Fitting
from pipeline.probes.task import Task
from pipeline.prompts.table import Prompts

HOW = Fitting(c_grid=[0.01, 1.0], folds=3, seed=0)


def made(count: int, seed: int, *, test: float = 0.5, sources: int = 1) -> tuple[Prompts, np.ndarray]:
    """Prompts whose first feature tells the label with some noise, and their features."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 2, count)
    features = rng.normal(size=(count, 8)) + 1.0 * clusters[:, None] * np.eye(8)[0]
    names = [f"{seed}-{n}" for n in range(count)]
    of_source = np.array([f"source {n}" for n in rng.integers(0, sources, count)])
    sides = np.where(rng.random(count) < test, "test", "train")
    templates, nearest = np.full(count, ""), np.where(sides == "test", rng.random(count), np.nan)
    return Prompts(names, names, of_source, clusters, np.array(names), sides, 1, seed, templates, nearest), features


def full_task(prompts: Prompts) -> Task:
    train = balanced(prompts, "train", Balancing("even", 2))
    return Task(FULL, 0, train, prompts.labels[train])
