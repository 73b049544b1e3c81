"""Fit logistic regressions with an L2 penalty, for all folds and all strengths of regularisation at once.

For each of the F folds and each C, this minimises, as scikit-learn's LogisticRegression does,
    sum over the fold's rows of log(1 + exp(-s (w . x + b))) + |w|^2 / (2 C),   where s = 1 or -1 is the label.

The solver is L-BFGS (Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 and 7.5). One matrix product
serves all problems. The line searches work on the logits, so they need no further products.
"""

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from pipeline.core.errors import UserError

MEMORY = 8  # steps that L-BFGS remembers
SEARCHES = 10  # of a step's length, at most
MAX_ITERATIONS = 1000
SLOPE = 0.3  # of the slope at a step's start that may be left at its end
NARROW = 256  # features up to which L-BFGS starts from a bound on the Hessian; with twice as many rows as features
LESS_NARROW = 4096  # up to so many
TINY = 1e-30
DENSE_FROM = 1 / 32  # share of entries from which products with a dense matrix are the faster ones

# a step of w (F, C, width + 1), how much it changed the gradient, and 1 / the product of both (F, C)
Update = tuple[Tensor, ...]


class Features:
    """The features of n prompts, and their products with many vectors at once.

    They are a numpy array (n, width), or (folds, n, width) where each fold has its own, or a scipy.sparse.csr_array
    (n, width).
    """

    def __init__(self, matrix: Any, folds: int) -> None:
        """Take the features. Where there are several folds, a sparse matrix with many entries is made dense."""
        if matrix.dtype != np.float32:
            matrix = matrix.astype(np.float64)
        if sparse.issparse(matrix) and folds > 1 and matrix.nnz > DENSE_FROM * np.prod(matrix.shape):
            matrix = matrix.toarray()
        self.matrix = matrix if sparse.issparse(matrix) else torch.from_numpy(np.ascontiguousarray(matrix))
        self.transposed = sparse.csr_array(matrix.T) if sparse.issparse(matrix) else self.matrix.mT
        self.width: int = matrix.shape[-1]
        self.dtype = torch.float32 if matrix.dtype == np.float32 else torch.float64

    def is_narrow(self) -> bool:
        """Return whether factors of a bound on the Hessian cost less time than they save in iterations."""
        few = max(NARROW, min(self.matrix.shape[-2] // 2, LESS_NARROW))
        return torch.is_tensor(self.matrix) and self.width <= few

    def logits(self, w: Tensor) -> Tensor:
        """Return logits (folds, C, n), without intercepts, for coefficients w (folds, C, width)."""
        return _product(w, self.transposed, self.matrix)

    def sums(self, r: Tensor) -> Tensor:
        """Return sums over all rows, weighted by r (folds, C, n): (folds, C, width)."""
        return _product(r, self.matrix, self.transposed)


def _product(vectors: Tensor, matrix: Any, transposed: Any) -> Tensor:
    if torch.is_tensor(matrix):
        return vectors @ matrix
    flat = np.ascontiguousarray(vectors.flatten(end_dim=1).numpy().T)
    return torch.from_numpy(np.ascontiguousarray((transposed @ flat).T)).unflatten(0, vectors.shape[:2])


def logistic(
    features: Features,
    labels: np.ndarray,
    rows: np.ndarray,
    offset: np.ndarray,
    scale: np.ndarray,
    c_grid: Sequence[float],
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit classifiers on the scaled features (x - offset) / scale.

    Args:
        labels: bool (n).
        rows: bool (F, n), the rows that each fold is fitted on.
        offset, scale: (F, width), of each fold.
        c_grid: the values of C, inverse strengths of regularisation.
        tolerance: a fit ends when no entry of its gradient, divided by its number of rows, exceeds this.

    Returns: coefficients (F, C, width) for the scaled features and intercepts (F, C), float64.
    Raises: UserError when a result is not finite.
    """
    dtype = features.dtype
    used = torch.as_tensor(rows, dtype=dtype)[:, None]
    centre, shrink = torch.as_tensor(offset, dtype=dtype)[:, None], torch.as_tensor(1 / scale, dtype=dtype)[:, None]
    target = torch.as_tensor(labels, dtype=dtype)
    penalty = 1 / torch.tensor(list(c_grid), dtype=dtype)[:, None]
    enough = tolerance * used.sum(dim=2)

    def logits_of(w: Tensor) -> Tensor:
        scaled = w[..., :-1] * shrink
        return features.logits(scaled) + (w[..., -1:] - _dot(scaled, centre)[..., None])

    def gradient(residual: Tensor, w: Tensor) -> Tensor:
        total = residual.sum(dim=2, keepdim=True)
        to_weights = (features.sums(residual) - total * centre) * shrink + penalty * w[..., :-1]
        return torch.cat([to_weights, total], dim=2)

    found = torch.zeros(len(rows), len(c_grid), features.width + 1, dtype=torch.float64)
    left = torch.arange(len(c_grid))  # the strengths that are still being fitted
    w = torch.zeros(found.shape, dtype=dtype)
    z = torch.zeros(*w.shape[:2], len(labels), dtype=dtype)
    g = gradient(used * (z.sigmoid() - target), w)
    factors = _factors(features.matrix, used, centre, shrink, penalty) if features.is_narrow() else None
    steps: deque[Update] = deque(maxlen=MEMORY)
    for _ in range(MAX_ITERATIONS):
        going = g.abs().amax(dim=2) > enough
        kept = going.any(dim=0)
        if not kept.all():
            found[:, left[~kept]] = w[:, ~kept].double()
            left, penalty, going = left[kept], penalty[kept], going[:, kept]
            w, z, g = w[:, kept], z[:, kept], g[:, kept]
            factors = factors[:, kept] if factors is not None else None
            steps = deque((tuple(part[:, kept] for part in step) for step in steps), maxlen=MEMORY)
        if not len(left):
            break
        d = torch.where(going[..., None], -_times_inverse_hessian(g, steps, factors), 0)
        dz = logits_of(d)
        slope, bend = penalty.T * _dot(w[..., :-1], d[..., :-1]), penalty.T * _dot(d[..., :-1], d[..., :-1])
        length, residual = _line_search(z, dz, used, target, slope, bend)
        step = length[..., None] * d
        w, z = w + step, z + length[..., None] * dz
        after = gradient(residual, w)
        change = after - g
        steps.append((step, change, _inverse(_dot(step, change), 0)))
        g = after
    found[:, left] = w.double()
    if len(left):
        print(f"warning: after {MAX_ITERATIONS} steps a fit has not converged; its result is used", file=sys.stderr)
    if not found.isfinite().all():
        raise UserError("a probe's fit has no finite result: remove what is not finite from the activations")
    return found[..., :-1].numpy(), found[..., -1].numpy()


def _line_search(
    z: Tensor, dz: Tensor, used: Tensor, target: Tensor, slope: Tensor, bend: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose lengths (F, C) of steps from logits z in the direction dz (F, C, n). Also return the residuals after them.

    The loss along a line is convex. A safeguarded Newton search ends where little of the first slope is left.

    Args:
        slope, bend: (F, C), first and second derivative of the penalty at length 0.
    """
    probability = z.sigmoid()
    first = _dot(used * (probability - target), dz) + slope
    following = -first * _inverse(_dot(used * probability * (1 - probability), dz * dz) + bend, 0)
    low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
    for _ in range(SEARCHES):
        length = following
        probability = torch.sigmoid(z + length[..., None] * dz)
        residual = used * (probability - target)
        here = _dot(residual, dz) + slope + length * bend
        wrong = here.abs() > SLOPE * first.abs()
        if not wrong.any():
            break
        low, high = torch.where(here < 0, length, low), torch.where(here > 0, length, high)
        newton = length - here * _inverse(_dot(used * probability * (1 - probability), dz * dz) + bend, 0)
        halved = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        inside = (newton > low) & (newton < high)
        following = torch.where(wrong, torch.where(inside, newton, halved), length)
    return length, residual


def _factors(matrix: Tensor, used: Tensor, centre: Tensor, shrink: Tensor, penalty: Tensor) -> Tensor | None:
    """Return Cholesky factors of a bound on the Hessian, float32 (F, C, width + 1, width + 1).

    The bound replaces each p (1 - p) by 1 / 4. For features that all folds share, the factors are those of the mean
    fold, (1, C, ...). None: the columns are too similar for single precision. Böhning & Lindsay 1988, "Monotonicity of
    quadratic-approximation algorithms".
    """
    if matrix.ndim == 2:
        used, centre, shrink = (each.mean(dim=0, keepdim=True) for each in (used, centre, shrink))
    scaled = ((matrix - centre) * shrink).float()
    rows = used.mT.sqrt().float() * torch.cat([scaled, torch.ones_like(scaled[..., :1])], dim=-1)
    diagonal = torch.nn.functional.pad(penalty.expand(-1, matrix.shape[-1]), (0, 1)).diag_embed().float()
    factors, failed = torch.linalg.cholesky_ex((rows.mT @ rows / 4)[:, None] + diagonal)
    return None if failed.any() else factors  # columns too much alike for single precision


def _times_inverse_hessian(g: Tensor, steps: Sequence[Update], factors: Tensor | None) -> Tensor:
    """Multiply g (F, C, width + 1) by L-BFGS's approximation of the inverse Hessian.

    Args:
        factors: Cholesky factors of the first Hessian, one per fold or one for all; None: it is a multiple of the
            identity.
    """

    def first(q: Tensor) -> Tensor:
        if factors is None:
            return q
        grouped = (
            q.float().unflatten(0, (len(factors), -1)).permute(0, 2, 3, 1)
        )  # folds with one factor are solved together
        return torch.cholesky_solve(grouped, factors).permute(0, 3, 1, 2).flatten(end_dim=1).to(q.dtype)

    if not steps:
        return first(g)
    q = g.clone()
    parts = []
    for step, change, curvature in reversed(steps):
        parts.append(curvature * _dot(step, q))
        q -= parts[-1][..., None] * change
    _, change, curvature = steps[-1]
    q = first(q) * _inverse(curvature * _dot(change, first(change)), 1)[..., None]
    for (step, change, curvature), part in zip(steps, reversed(parts), strict=True):
        q += (part - curvature * _dot(change, q))[..., None] * step
    return q


def _inverse(values: Tensor, otherwise: float) -> Tensor:
    """Return 1 / values, and `otherwise` where they are not positive (by rounding, or in a fold that is done)."""
    return torch.where(values > TINY, 1 / values, otherwise)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)
