"""Fitting an arm, with everything about it chosen by cross-validation inside its training prompts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.core.errors import UserError
from pipeline.judging.metrics import value_of
from pipeline.probes.cross_validation import Folds, Split, l1_regression, scaled, take
from pipeline.probes.logistic import Features, logistic
from pipeline.probes.models import Fitted, Matrix, Model
from pipeline.probes.task import Task

FINE_TOLERANCE, FINE_L1_TOLERANCE = 1e-6, 1e-4  # of what is kept
LOWEST_C, HIGHEST_C = 1e-6, 1e4  # to which a grid is widened, where its best C is at its edge
GAIN = 1e-4  # of AUROC, without which it is not widened further


@dataclass(frozen=True)
class Fitting:
    """How arms are fitted. c_grid: inverse regularisation strengths to choose from; folds: of the cross-validation."""

    c_grid: Sequence[float]
    folds: int
    seed: int


@dataclass(frozen=True)
class Candidate:
    """What cross-validation chooses from: pooling and C, with what it finds."""

    pooling: str
    c: float
    cv_auroc: float
    """The mean over the folds."""
    out_of_fold: np.ndarray
    """(n): the logit of each training prompt by the fit on the folds that it is not in."""


@dataclass(frozen=True)
class Chosen(Candidate):
    """The best candidate, and its fit on all of a task's training prompts."""

    fitted: Fitted
    c_tried: tuple[float, float]
    """The least and the largest C that were tried."""
    c_at_edge: bool
    """Whether a C beyond LOWEST_C or HIGHEST_C might be better."""


def fit(
    features: Mapping[str, Matrix],
    model: Model,
    task: Task,
    groups: np.ndarray,
    fitting: Fitting,
) -> dict[int | None, Chosen]:
    """Choose pooling and C by cross-validated AUROC, then fit on all training prompts of the task.

    Where the best C is at the edge of its grid, further powers of ten are tried with the best pooling.

    Args:
        features: for each pooling the features of all prompts (N, width); only rows of task.train are looked at.
        groups: near-duplicate groups (N).

    Returns: what was chosen, for each k of model.sizes that the features have; without sizes for None, all features.
    Raises: UserError when there are too few groups or prompts for the folds.
    """
    splits = folds_of(task, groups, fitting)

    @lru_cache(maxsize=1)
    def folds_at(pooling: str) -> Folds:
        return Folds(model, take(features[pooling], task.train), task.labels, splits)

    def candidate_at(pooling: str, k: int | None, c: float) -> Candidate:
        return _candidates(folds_at(pooling), pooling, k, [c])[0]

    tried: dict[int | None, list[Candidate]] = {}
    for pooling in features:
        for k in folds_at(pooling).sizes:
            tried.setdefault(k, []).extend(_candidates(folds_at(pooling), pooling, k, fitting.c_grid))
    if any(math.isnan(candidate.cv_auroc) for found in tried.values() for candidate in found):
        raise UserError(f"every fold of {task.setting} has only one class: lower probe.folds, or use more data")
    # of equals the most regularised
    best = {k: max(found, key=lambda each: (round(each.cv_auroc, 6), -each.c)) for k, found in tried.items()}
    prepared: dict[str, tuple[Any, Matrix]] = {}
    chosen: dict[int | None, Chosen] = {}
    for k in sorted(best, key=lambda k: list(features).index(best[k].pooling)):  # one pooling after the other
        pooling = best[k].pooling
        candidate, c_tried, c_at_edge = _widened(best[k], fitting.c_grid, partial(candidate_at, pooling, k))
        if pooling not in prepared:
            prepare, matrix = model.prepare and model.prepare(), take(features[pooling], task.train)
            prepared[pooling] = prepare, prepare.fit_transform(matrix, task.labels) if prepare else matrix
        prepare, matrix = prepared[pooling]
        narrow = matrix[:, :k] if k else matrix
        fitted = Fitted(prepare, *_fit_finely(model, narrow.astype(np.float64), task.labels, candidate.c))
        chosen[k] = Chosen(**vars(candidate), fitted=fitted, c_tried=c_tried, c_at_edge=c_at_edge)
    return {k: chosen[k] for k in best}


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


def _candidates(folds: Folds, pooling: str, k: int | None, c_grid: Sequence[float]) -> list[Candidate]:
    """One for each C, of classifiers on the first k features."""
    logits = folds.logits(k, c_grid)
    return [
        Candidate(pooling, c, cv_auroc(folds.labels, folds.splits, of_c), of_c)
        for c, of_c in zip(c_grid, logits, strict=True)
    ]


def cv_auroc(labels: np.ndarray, splits: Sequence[Split], out_of_fold: np.ndarray) -> float:
    """Return the mean AUROC over the folds with both classes; NaN without any."""
    values = [value_of("auroc", labels[outside], out_of_fold[outside]) for _, outside in splits]
    return math.nan if np.isnan(values).all() else float(np.nanmean(values))


def _widened(
    best: Candidate, c_grid: Sequence[float], candidate_at: Callable[[float], Candidate]
) -> tuple[Candidate, tuple[float, float], bool]:
    """Try further powers of ten while the best C is at the edge of what was tried, and each gains something.

    Returns: the best, the least and the largest C that were tried, and whether it is at an edge that stays.
    """
    low, high = min(c_grid), max(c_grid)
    if low == high or best.c not in (low, high):  # a single C is what is wanted
        return best, (low, high), False
    upwards = best.c == high
    while LOWEST_C <= (c := _next_power(best.c, upwards)) <= HIGHEST_C:
        low, high = min(low, c), max(high, c)
        further = candidate_at(c)
        if further.cv_auroc < best.cv_auroc + GAIN:
            return best, (low, high), False
        best = further
    return best, (low, high), True


def _next_power(c: float, upwards: bool) -> float:
    """The power of ten after C."""
    exponent = round(math.log10(c), 6)  # 1000 is not just below itself
    return float(10.0 ** (math.floor(exponent) + 1 if upwards else math.ceil(exponent) - 1))


def _fit_finely(
    model: Model, matrix: Matrix, labels: np.ndarray, c: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Offset, scale, coefficient (width) and intercept of the fit on all rows of prepared features, float64."""
    offset, scale = model.scaling(matrix)
    if model.l1:
        regression = l1_regression(c, FINE_L1_TOLERANCE).fit(scaled(matrix, offset, scale), labels)
        return offset, scale, regression.coef_[0].copy(), float(regression.intercept_[0])
    everyone = np.ones((1, len(labels)), dtype=bool)
    coefficient, intercept = logistic(
        Features(matrix, 1), labels, everyone, offset[None], scale[None], [c], FINE_TOLERANCE
    )
    return offset, scale, coefficient[0, 0], float(intercept[0, 0])
