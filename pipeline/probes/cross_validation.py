"""Out-of-fold logits of logistic regressions: of each training prompt, by the fit of the folds that did not see it."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from pipeline.probes.logistic import Features, logistic
from pipeline.probes.models import Matrix, Model

TOLERANCE = 1e-4
L1_TOLERANCE = 1e-3  # of liblinear
L1_ITERATIONS = 1000

Split = tuple[np.ndarray, np.ndarray]


class Folds:
    """The features of one pooling, prepared and scaled in each fold by the prompts inside it."""

    def __init__(self, model: Model, matrix: Matrix, labels: np.ndarray, splits: Sequence[Split]) -> None:
        """Prepare the features (n, width) of the training prompts, with labels (n), for each of the splits."""
        self.model, self.labels, self.splits = model, labels, splits
        parts: list[tuple[Matrix, Sequence[Split]]] = [(matrix, splits)]
        if model.prepare is not None:
            each = [model.prepare().fit(take(matrix, inside), labels[inside]).transform(matrix) for inside, _ in splits]
            if all(isinstance(one, np.ndarray) and one.shape == each[0].shape for one in each):
                parts = [(np.stack(each), splits)]
            else:
                parts = [(one, [split]) for one, split in zip(each, splits, strict=True)]
        self.parts = [_Part(model, *part) for part in parts]

    @property
    def sizes(self) -> list[int | None]:
        """Those of the model's sizes that the features of every fold have; without sizes None, all features."""
        widest = min(part.matrix.shape[-1] for part in self.parts)
        return [k for k in self.model.sizes or [None] if (k or 0) <= widest]

    def logits(self, k: int | None, c_grid: Sequence[float]) -> np.ndarray:
        """Fit on the first k columns, for each C; return the out-of-fold logits (C, n), float64."""
        out_of_fold = np.empty((len(c_grid), len(self.labels)))
        for part in self.parts:
            logits = part.logits(self.labels, k, c_grid)
            for fold, (_, outside) in enumerate(part.splits):
                out_of_fold[:, outside] = logits[fold][:, outside]
        return out_of_fold


class _Part:
    """Prepared features that some folds share, (n, width), or have one each of, (folds, n, width)."""

    def __init__(self, model: Model, matrix: Matrix, splits: Sequence[Split]) -> None:
        self.l1, self.splits = model.l1, splits
        scaling = (model.scaling(_of_fold(matrix, fold)[inside]) for fold, (inside, _) in enumerate(splits))
        self.offset, self.scale = (np.stack(each) for each in zip(*scaling, strict=True))
        if not sparse.issparse(matrix):  # products in float32 would lose columns far from zero
            centre = matrix.mean(axis=-2, dtype=np.float64)
            matrix, self.offset = (matrix - centre[..., None, :]).astype(matrix.dtype), self.offset - centre
        self.matrix = matrix

    def logits(self, labels: np.ndarray, k: int | None, c_grid: Sequence[float]) -> np.ndarray:
        """Logits (folds, C, n) of fits on the rows inside each fold."""
        width = k or self.matrix.shape[-1]
        matrix = self.matrix[..., :width] if k else self.matrix
        offset, scale = self.offset[:, :width], self.scale[:, :width]
        if self.l1:
            return self._logits_l1(matrix, labels, offset, scale, c_grid)
        features = Features(matrix, len(self.splits))
        rows = np.zeros((len(self.splits), len(labels)), dtype=bool)
        for fold, (inside, _) in enumerate(self.splits):
            rows[fold, inside] = True
        coefficient, intercept = logistic(features, labels, rows, offset, scale, c_grid, TOLERANCE)
        weight = coefficient / scale[:, None]
        products = features.logits(torch.from_numpy(weight).to(features.dtype)).double().numpy()
        return np.asarray(products + (intercept - (weight * offset[:, None]).sum(axis=-1))[..., None])

    def _logits_l1(
        self, matrix: Matrix, labels: np.ndarray, offset: np.ndarray, scale: np.ndarray, c_grid: Sequence[float]
    ) -> np.ndarray:
        logits = np.empty((len(self.splits), len(c_grid), len(labels)))
        for fold, (inside, _) in enumerate(self.splits):
            here = scaled(_of_fold(matrix, fold), offset[fold], scale[fold])
            for number, c in enumerate(c_grid):
                logits[fold, number] = (
                    l1_regression(c, L1_TOLERANCE).fit(here[inside], labels[inside]).decision_function(here)
                )
        return logits


def take(matrix: Matrix, rows: np.ndarray) -> Matrix:
    """Rows of a matrix, or of a list of texts."""
    return [matrix[row] for row in rows] if isinstance(matrix, list) else matrix[rows]


def scaled(matrix: Matrix, offset: np.ndarray, scale: np.ndarray) -> Matrix:
    """Scaled columns; sparse ones have no offset."""
    if sparse.issparse(matrix):
        return sparse.csr_array(matrix.multiply(1 / scale))
    return (matrix - offset) / scale


def l1_regression(c: float, tolerance: float) -> LogisticRegression:
    """A regression under an L1 penalty, not yet fitted."""
    return LogisticRegression(
        solver="liblinear", l1_ratio=1.0, C=c, tol=tolerance, max_iter=L1_ITERATIONS, random_state=0
    )


def _of_fold(matrix: Matrix, fold: int) -> Matrix:
    return matrix[fold] if matrix.ndim == 3 else matrix
