"""Fitting an arm, with everything about it chosen by cross-validation inside its training prompts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.core.errors import UserError
from pipeline.judging.metrics import value_of
from pipeline.probes.logistic import Features, logistic
from pipeline.probes.models import Fitted, Matrix, Model
from pipeline.probes.task import Task

TOLERANCE = 1e-4  # while choosing
FINE_TOLERANCE = 1e-6  # of what is kept
L1_TOLERANCE, FINE_L1_TOLERANCE = 1e-3, 1e-4  # of liblinear
L1_ITERATIONS = 1000

Split = tuple[np.ndarray, np.ndarray]


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
    fitting: Fitting,
) -> dict[int | None, Chosen]:
    """Choose pooling and C by cross-validated AUROC, then fit on all training prompts of the task.

    Args:
        features: for each pooling the features of all prompts (N, width); only rows of task.train are looked at.
        groups: near-duplicate groups (N).

    Returns: what was chosen, for each k of model.sizes that the features have; without sizes for None, all features.
    Raises: UserError when there are too few groups or prompts for the folds.
    """
    splits = folds_of(task, groups, fitting)
    scores: dict[tuple[int | None, str, float], list[float]] = {}
    for pooling, matrix in features.items():
        for k, c, value in _cross_validated(model, take(matrix, task.train), task.labels, splits, fitting.c_grid):
            scores.setdefault((k, pooling, c), []).append(value)
    if any(np.isnan(values).all() for values in scores.values()):
        raise UserError(f"every fold of {task.setting} has only one class: lower probe.folds, or use more data")
    means = {key: float(np.nanmean(values)) for key, values in scores.items()}
    best = {
        # of equals the most regularised
        k: max((key for key in means if key[0] == k), key=lambda key: (round(means[key], 6), -key[2]))
        for k in dict.fromkeys(key[0] for key in means)
    }
    prepared: dict[str, tuple[Any, Matrix]] = {}
    chosen: dict[int | None, Chosen] = {}
    for k, (_, pooling, c) in best.items():
        if pooling not in prepared:
            prepare, matrix = model.prepare and model.prepare(), take(features[pooling], task.train)
            prepared[pooling] = prepare, prepare.fit_transform(matrix, task.labels) if prepare else matrix
        prepare, matrix = prepared[pooling]
        narrow = matrix[:, :k] if k else matrix
        fitted = _fit_finely(model, narrow.astype(np.float64), task.labels, c)
        chosen[k] = Chosen(pooling, c, means[best[k]], Fitted(prepare, *fitted))
    return chosen


def folds_of(task: Task, groups: np.ndarray, fitting: Fitting) -> list[Split]:
    """The splits of the task, made if it has none yet; near-duplicate groups (N) never straddle them.

    Raises: UserError when there are too few groups.
    """
    if task.splits is not None:
        return task.splits
    for label in (True, False):
        if len(set(groups[task.train][task.labels == label])) < fitting.folds:
            raise UserError(f"too few groups of near-duplicates in train for probe.folds = {fitting.folds}: lower it")
    splitter = StratifiedGroupKFold(fitting.folds, shuffle=True, random_state=fitting.seed)
    return list(splitter.split(task.labels, task.labels, groups[task.train]))


def take(matrix: Matrix, rows: np.ndarray) -> Matrix:
    """Rows of a matrix, or of a list of texts."""
    return [matrix[row] for row in rows] if isinstance(matrix, list) else matrix[rows]


def _cross_validated(
    model: Model, matrix: Matrix, labels: np.ndarray, splits: Sequence[Split], c_grid: Sequence[float]
) -> Iterator[tuple[int | None, float, float]]:
    """k, C, and the AUROC on the prompts outside a fold, of fits on those inside."""
    if model.prepare is None:
        yield from _aurocs(model, matrix, labels, splits, c_grid)
        return
    prepared = [model.prepare().fit(take(matrix, inside), labels[inside]).transform(matrix) for inside, _ in splits]
    if all(isinstance(each, np.ndarray) and each.shape == prepared[0].shape for each in prepared):
        yield from _aurocs(model, np.stack(prepared), labels, splits, c_grid)
        return
    for each, split in zip(prepared, splits, strict=True):
        yield from _aurocs(model, each, labels, [split], c_grid)


def _aurocs(
    model: Model, matrix: Matrix, labels: np.ndarray, splits: Sequence[Split], c_grid: Sequence[float]
) -> Iterator[tuple[int | None, float, float]]:
    """As _cross_validated, of prepared features, (n, width) or (folds, n, width)."""
    scaling = [model.scaling(_of_fold(matrix, fold)[inside]) for fold, (inside, _) in enumerate(splits)]
    offset, scale = (np.stack(each) for each in zip(*scaling, strict=True))
    if not sparse.issparse(matrix):  # products in float32 would lose columns far from zero
        centre = matrix.mean(axis=-2, dtype=np.float64)
        matrix, offset = (matrix - centre[..., None, :]).astype(matrix.dtype), offset - centre
    insides = [inside for inside, _ in splits]
    for k in model.sizes or [None]:
        width = k or matrix.shape[-1]
        if width > matrix.shape[-1]:
            continue
        narrow = matrix[..., :width] if k else matrix
        logits = (_logits_l1 if model.l1 else _logits)(
            narrow, labels, insides, offset[:, :width], scale[:, :width], c_grid
        )
        for fold, (_, outside) in enumerate(splits):
            for number, c in enumerate(c_grid):
                yield k, c, value_of("auroc", labels[outside], logits[fold, number, outside])


def _of_fold(matrix: Matrix, fold: int) -> Matrix:
    return matrix[fold] if matrix.ndim == 3 else matrix


def _logits(
    matrix: Matrix,
    labels: np.ndarray,
    insides: Sequence[np.ndarray],
    offset: np.ndarray,
    scale: np.ndarray,
    c_grid: Sequence[float],
) -> np.ndarray:
    """Logits (folds, C, n), up to a constant each, of fits on the rows inside each fold; scaling: (folds, width)."""
    features = Features(matrix, len(insides))
    rows = np.zeros((len(insides), len(labels)), dtype=bool)
    for fold, inside in enumerate(insides):
        rows[fold, inside] = True
    coefficient, _ = logistic(features, labels, rows, offset, scale, c_grid, TOLERANCE)
    return features.logits(torch.from_numpy(coefficient / scale[:, None]).to(features.dtype)).numpy()


def _logits_l1(
    matrix: Matrix,
    labels: np.ndarray,
    insides: Sequence[np.ndarray],
    offset: np.ndarray,
    scale: np.ndarray,
    c_grid: Sequence[float],
) -> np.ndarray:
    """As _logits, under an L1 penalty."""
    logits = np.empty((len(insides), len(c_grid), len(labels)))
    for fold, inside in enumerate(insides):
        scaled = _scaled(_of_fold(matrix, fold), offset[fold], scale[fold])
        for number, c in enumerate(c_grid):
            regression = _l1(c, L1_TOLERANCE).fit(scaled[inside], labels[inside])
            logits[fold, number] = scaled @ regression.coef_[0]
    return logits


def _fit_finely(
    model: Model, matrix: Matrix, labels: np.ndarray, c: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Offset, scale, coefficient (width) and intercept of the fit on all rows of prepared features, float64."""
    offset, scale = model.scaling(matrix)
    if model.l1:
        regression = _l1(c, FINE_L1_TOLERANCE).fit(_scaled(matrix, offset, scale), labels)
        return offset, scale, regression.coef_[0].copy(), float(regression.intercept_[0])
    everyone = np.ones((1, len(labels)), dtype=bool)
    coefficient, intercept = logistic(
        Features(matrix, 1), labels, everyone, offset[None], scale[None], [c], FINE_TOLERANCE
    )
    return offset, scale, coefficient[0, 0], float(intercept[0, 0])


def _l1(c: float, tolerance: float) -> LogisticRegression:
    return LogisticRegression(
        solver="liblinear", l1_ratio=1.0, C=c, tol=tolerance, max_iter=L1_ITERATIONS, random_state=0
    )


def _scaled(matrix: Matrix, offset: np.ndarray, scale: np.ndarray) -> Matrix:
    """Scaled columns; sparse ones have no offset."""
    if sparse.issparse(matrix):
        return sparse.csr_array(matrix.multiply(1 / scale))
    return (matrix - offset) / scale
