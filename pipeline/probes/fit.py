"""Fitting a logistic-regression probe, with everything about it chosen by cross-validation inside train."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline

from pipeline.errors import UserError
from pipeline.probes.task import Part
from pipeline.progress import progress

MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Probe:
    """A fitted probe. choices: what cross-validation chose, and its mean AUROC over the folds."""

    pipeline: Pipeline
    choices: dict[str, Any]


def fit_probe(
    features: Mapping[str, Any],
    prepare: BaseEstimator,
    train: Part,
    *,
    c_grid: Sequence[float],
    folds: int,
    seed: int,
    name: str,
    solver: Literal["newton-cholesky", "newton-cg"] = "newton-cholesky",
    slow_prepare: bool = False,
) -> Probe:
    """Choose pooling and C by cross-validated AUROC, then fit on all of train.

    Args:
        features: for each pooling the train features (prompts, width), or texts; test is never seen here.
        prepare: a transformer fitted inside each fold (scaling, or TF-IDF).
        folds: near-duplicate groups never straddle them.
        name: what the progress bar calls it.
        solver: of the logistic regression; `newton-cg` where the features are sparse and many.
        slow_prepare: keep on disk what `prepare` makes of a fold, which is the same for every C.

    Raises: UserError when there are too few groups for the folds.
    """
    for label in (True, False):
        if len(set(train.groups[train.labels == label])) < folds:
            raise UserError(f"too few groups of near-duplicates in train for probe.folds = {folds}: lower it")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(train.labels, train.labels, train.groups))
    best: GridSearchCV | None = None
    chosen = ""
    with TemporaryDirectory() as memory, progress(len(features), name, "pooling") as bar:
        for pooling, matrix in features.items():
            regression = LogisticRegression(max_iter=MAX_ITERATIONS, solver=solver)
            model = Pipeline([("prepare", prepare), ("probe", regression)], memory=memory if slow_prepare else None)
            search = GridSearchCV(model, {"probe__C": list(c_grid)}, scoring="roc_auc", cv=splits)
            search.fit(matrix, train.labels)
            if best is None or search.best_score_ > best.best_score_:
                best, chosen = search, pooling
            bar.update()
    assert best is not None
    if not np.isfinite(best.best_score_):
        raise UserError(f"a fold of {name} has only one class: lower probe.folds, or use more data")
    choices = {
        "pooling": chosen,
        "C": best.best_params_["probe__C"],
        "cv_auroc": round(float(best.best_score_), 4),
        "train_prompts": len(train.labels),
    }
    return Probe(best.best_estimator_, choices)


def shuffled(part: Part, seed: int) -> Part:
    """`part` with its labels permuted: a probe fitted on it must score test at chance."""
    labels = np.random.default_rng(seed).permutation(part.labels)
    return Part(part.prompt_ids, part.prompts, labels, part.groups)
