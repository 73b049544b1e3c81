"""Fitting an arm, with everything about it chosen by cross-validation inside its training prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.errors import UserError
from pipeline.probes.metrics import auroc
from pipeline.probes.models import FINE_TOLERANCE, Fitted, Matrix, Model
from pipeline.probes.task import Task


@dataclass(frozen=True)
class Fitting:
    """How arms are fitted. c_grid: inverse regularisation strengths to choose from; folds: of the cross-validation."""

    c_grid: Sequence[float]
    folds: int
    seed: int


@dataclass(frozen=True)
class Chosen:
    """A classifier fitted on all of a task's training prompts. pooling, c: chosen; cv_auroc: mean over the folds."""

    pooling: str
    c: float
    cv_auroc: float
    fitted: Fitted


def fit(
    features: Mapping[str, Matrix],
    model: Model,
    task: Task,
    groups: np.ndarray,
    how: Fitting,
) -> dict[int, Chosen]:
    """Choose pooling and C by cross-validated AUROC, then fit on all training prompts of the task.

    Args:
        features: for each pooling the features of all prompts (N, width); only rows of task.train are looked at.
        groups: near-duplicate groups (N).

    Returns: for each of model.sizes that the features have, or for 0 without sizes, what was chosen.
    Raises: UserError when there are too few groups or prompts for the folds.
    """
    splits = folds_of(task, groups, how)
    chosen_rows = {pooling: take(matrix, task.train) for pooling, matrix in features.items()}
    scores: dict[tuple[int, str, float], list[float]] = {}
    for pooling, matrix in chosen_rows.items():
        for inside, outside in splits:
            for (size, c), value in _fold(model, matrix, task.labels, inside, outside, how.c_grid).items():
                scores.setdefault((size, pooling, c), []).append(value)
    if any(np.isnan(values).all() for values in scores.values()):
        raise UserError(f"every fold of {task.setting} has only one class: lower probe.folds, or use more data")
    means = {key: float(np.nanmean(values)) for key, values in scores.items()}
    best = {
        # of equals the most regularised
        size: max((key for key in means if key[0] == size), key=lambda key: (round(means[key], 6), -key[2]))
        for size in sorted({key[0] for key in means})
    }
    prepared: dict[str, tuple[Any, Matrix]] = {}
    fitted = {}
    for size, (_, pooling, c) in best.items():
        if pooling not in prepared:
            prepare = model.prepare()
            prepared[pooling] = prepare, prepare.fit_transform(chosen_rows[pooling], task.labels)
        prepare, matrix = prepared[pooling]
        *_, regression = model.path(matrix[:, :size] if size else matrix, task.labels, [c], FINE_TOLERANCE)
        last = Fitted(prepare, regression.coef_[0].copy(), float(regression.intercept_[0]))
        fitted[size] = Chosen(pooling, c, means[best[size]], last)
    return fitted


def folds_of(task: Task, groups: np.ndarray, how: Fitting) -> list[tuple[np.ndarray, np.ndarray]]:
    """The splits of the task, made if it has none yet; near-duplicate groups (N) never straddle them.

    Raises: UserError when there are too few groups.
    """
    if task.splits is not None:
        return task.splits
    for label in (True, False):
        if len(set(groups[task.train][task.labels == label])) < how.folds:
            raise UserError(f"too few groups of near-duplicates in train for probe.folds = {how.folds}: lower it")
    splitter = StratifiedGroupKFold(how.folds, shuffle=True, random_state=how.seed)
    return list(splitter.split(task.labels, task.labels, groups[task.train]))


def take(matrix: Matrix, rows: np.ndarray) -> Matrix:
    """Rows of a matrix, or of a list of texts."""
    return [matrix[row] for row in rows] if isinstance(matrix, list) else matrix[rows]


def _fold(
    model: Model, matrix: Matrix, labels: np.ndarray, inside: np.ndarray, outside: np.ndarray, c_grid: Sequence[float]
) -> dict[tuple[int, float], float]:
    """AUROC on the prompts `outside`, for each size and C, of fits on those `inside`."""
    prepare = model.prepare()
    train = prepare.fit_transform(take(matrix, inside), labels[inside])
    held_out = prepare.transform(take(matrix, outside))
    sizes = [0] if model.sizes is None else [size for size in model.sizes if size <= train.shape[1]]
    everyone = np.ones((1, len(outside)))
    found = {}
    for size in sizes:
        narrow, wide = (part[:, :size] if size else part for part in (train, held_out))
        for regression in model.path(narrow, labels[inside], c_grid):
            logits = wide @ regression.coef_[0]
            found[size, float(regression.C)] = float(auroc(labels[outside], logits, everyone)[0])
    return found
