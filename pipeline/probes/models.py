"""Linear classifiers fitted along a path of regularisation strengths."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression

Matrix = Any  # a numpy array or a scipy.sparse.csr_array (prompts, width), or texts
FEW = 100  # features up to which Newton's method with a dense Hessian is the fastest
MAX_ITERATIONS = 1000
TOLERANCE = 1e-4  # while choosing
FINE_TOLERANCE = 1e-6  # of what is kept


@dataclass(frozen=True)
class Model:
    """Logistic regression on prepared features.

    prepare: makes a transformer, which is fitted on the training prompts alone, each fold's in cross-validation.
    l1: penalise absolute values in place of squares.
    sizes: fit on the first k columns that `prepare` makes, for each k; None: on all of them.
    """

    prepare: Callable[[], BaseEstimator]
    l1: bool = False
    sizes: tuple[int, ...] | None = None

    def path(
        self, matrix: Matrix, labels: np.ndarray, c_grid: Sequence[float], tolerance: float = TOLERANCE
    ) -> Iterator[LogisticRegression]:
        """Fits on prepared features for ascending C, each started from the one before; the same object each time."""
        few = not sparse.issparse(matrix) and matrix.shape[1] <= FEW
        solver = "liblinear" if self.l1 else "newton-cholesky" if few else "lbfgs"
        regression = LogisticRegression(
            solver=solver,
            l1_ratio=1.0 if self.l1 else 0.0,
            max_iter=MAX_ITERATIONS,
            tol=tolerance,
            warm_start=True,
            random_state=0,
        )
        for strength in sorted(c_grid):
            yield regression.set_params(C=strength).fit(matrix, labels)


@dataclass(frozen=True)
class Fitted:
    """A classifier: probability = sigmoid(coefficient . prepared features + intercept)."""

    prepare: Any
    coefficient: np.ndarray
    intercept: float

    def probabilities(self, matrix: Matrix) -> np.ndarray:
        """Of the target, (N)."""
        prepared = self.prepare.transform(matrix)[:, : len(self.coefficient)]
        return np.asarray(expit(prepared @ self.coefficient + self.intercept))

    def weights(self) -> dict[str, np.ndarray]:
        """coefficient (width), intercept (1), offset and scale (width) where the features are only scaled: the logit is
        coefficient . (x - offset) / scale + intercept."""
        named = {"offset": "mean_", "scale": "scale_"}
        scaling = {name: getattr(self.prepare, key) for name, key in named.items() if hasattr(self.prepare, key)}
        return {"coefficient": self.coefficient, "intercept": np.array([self.intercept]), **scaling}


class Ranked(TransformerMixin, BaseEstimator):
    """The columns that tell the classes apart best, best first: by the F statistic (for two classes, t squared)."""

    def __init__(self, k: int) -> None:
        self.k = k

    def fit(self, matrix: Matrix, labels: np.ndarray) -> "Ranked":
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
