"""What linear classifiers are made of: how features are prepared and scaled, and what is left after fitting."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_selection import f_classif

Matrix = Any  # a numpy array or a scipy.sparse.csr_array (prompts, width), or texts


@dataclass(frozen=True)
class Model:
    """Logistic regression on prepared and scaled features.

    scaler: StandardScaler or MaxAbsScaler, fitted on the training prompts alone, each fold's in cross-validation;
        None: features as they are.
    prepare: makes a transformer, fitted likewise, whose features are scaled; None: there is nothing to prepare.
    l1: penalise absolute values in place of squares.
    sizes: fit on the first k columns that `prepare` makes, for each k; None: on all of them.
    """

    scaler: type[BaseEstimator] | None
    prepare: Callable[[], BaseEstimator] | None = None
    l1: bool = False
    sizes: tuple[int, ...] | None = None

    def scaling(self, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
        """Offset and scale of the columns of prepared features (n, width), float64."""
        offset, scale = np.zeros(matrix.shape[1]), np.ones(matrix.shape[1])
        if self.scaler is None:
            return offset, scale
        fitted: Any = self.scaler().fit(matrix)
        return getattr(fitted, "mean_", offset), fitted.scale_


@dataclass(frozen=True)
class Fitted:
    """A classifier: probability = sigmoid(coefficient . (prepared features - offset) / scale + intercept)."""

    prepare: Any
    offset: np.ndarray
    scale: np.ndarray
    coefficient: np.ndarray
    intercept: float

    def probabilities(self, matrix: Matrix) -> np.ndarray:
        """Of the target, (N)."""
        prepared = matrix if self.prepare is None else self.prepare.transform(matrix)
        weight = self.coefficient / self.scale
        return np.asarray(expit(prepared[:, : len(weight)] @ weight + (self.intercept - self.offset @ weight)))

    def weights(self) -> dict[str, np.ndarray]:
        """coefficient, offset and scale (width), intercept (1), and what the preparation is made of."""
        own = {"coefficient": self.coefficient, "offset": self.offset, "scale": self.scale}
        made_of = self.prepare.weights(len(self.coefficient)) if hasattr(self.prepare, "weights") else {}
        return {**own, "intercept": np.array([self.intercept]), **made_of}


class BestColumns(TransformerMixin, BaseEstimator):
    """The columns that tell the classes apart best, best first: by the F statistic (for two classes, t squared)."""

    def __init__(self, k: int) -> None:
        self.k = k

    def fit(self, matrix: Matrix, labels: np.ndarray) -> "BestColumns":
        if not sparse.issparse(matrix):  # sums of squares in float32 would lose columns far from zero
            matrix = matrix - matrix.mean(axis=0, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):
            score = np.nan_to_num(f_classif(matrix, labels)[0], nan=-1.0)
        self.columns_ = np.argsort(-score, kind="stable")[: self.k]
        return self

    def transform(self, matrix: Matrix) -> np.ndarray:
        """(N, k), dense."""
        chosen = matrix[:, self.columns_]
        return chosen.toarray() if sparse.issparse(chosen) else chosen

    def weights(self, k: int) -> dict[str, np.ndarray]:
        """The k best columns: which features the classifier's coefficients are of."""
        return {"columns": self.columns_[:k]}
