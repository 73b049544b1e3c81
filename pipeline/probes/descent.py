"""Fit classifiers that are not linear, all folds and strengths of regularisation at once.

Each contains a linear classifier on mean vectors. It begins as the fitted one and goes on by Adam (Kingma & Ba 2015,
https://arxiv.org/abs/1412.6980), on the same sum of log losses and penalty. After how many steps it ends is chosen by
cross-validation, with none at all among the choices. One product of a batch's vectors serves all folds and strengths.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.probes.cross_validation import TOLERANCE, Split
from pipeline.probes.fit import Fitting, cv_auroc, fit, folds_of
from pipeline.probes.inputs import Inputs, chunks, means
from pipeline.probes.logistic import Features, logistic
from pipeline.probes.models import Model
from pipeline.probes.task import Task

STEPS = (0, 50, 100, 200)
RATE = 0.5  # of a step, over the vectors' width: as much as it may add to a product with a vector of ones
MOST = 0.02  # of a step, where vectors are short
TINY = 1e-8
DECAYS = 0.9, 0.999  # of Adam's means of gradients and of their squares

Parameters = dict[str, Tensor]  # each (F, C, ...); `directions` (F, C, width, m) are of the scaled vectors


class Form(Protocol):
    """How a prompt's logit is made of its vectors."""

    def start(self, coefficient: Tensor, intercept: Tensor, seed: int) -> Parameters:
        """Make parameters with the logits of linear classifiers: coefficient (F, C, width), intercept (F, C)."""

    def logits(self, z: Tensor, parameters: Parameters, prompt: Tensor, prompts: int) -> Tensor:
        """Return logits (prompts, F, C), of the vectors' products with the directions z (T, F, C, m)."""

    def penalty(self, parameters: Parameters) -> Tensor:
        """Return the sum of squares that is to be small, (F, C)."""


@dataclass(frozen=True)
class Descended:
    """A classifier fitted on all training prompts of a task."""

    pooling: str
    """Which of the inputs was chosen."""
    c: float
    """The chosen C."""
    c_tried: list[float]
    """Those that there was a choice of, with this pooling, ascending."""
    steps: int
    """The chosen number of steps."""
    cv_auroc: float
    """Mean over the folds."""
    logits: np.ndarray
    """(N): of all prompts, float64."""
    out_of_fold: np.ndarray
    """(n): logits of the training prompts, each by the fit of the folds that did not see it, float64."""
    weights: dict[str, np.ndarray]
    """The parameters by name, for vectors from which `offset` (width) is taken and which are divided by `scale`."""

    def choices(self) -> dict[str, Any]:
        """Return what was chosen, as an arm keeps it."""
        return {"C": self.c, "C_tried": self.c_tried, "steps": self.steps, "cv_auroc": round(self.cv_auroc, 4)} | {
            "train_prompts": len(self.out_of_fold)
        }


def descend(form: Form, inputs: Mapping[str, Inputs], task: Task, groups: np.ndarray, fitting: Fitting) -> Descended:
    """Choose pooling, C and number of steps by cross-validated AUROC, then fit on all training prompts of the task.

    Args:
        inputs: by pooling, of the N prompts.
        groups: near-duplicate group of each prompt (N).

    Raises: UserError when there are too few groups or prompts for the folds.
    """
    splits = folds_of(task, groups, fitting)
    inside = np.zeros((len(splits), len(task.train)), dtype=bool)
    for fold, (rows, _) in enumerate(splits):
        inside[fold, rows] = True
    found: dict[tuple[int, float, str], tuple[float, np.ndarray]] = {}
    for pooling, vectors in inputs.items():
        folds = _Folds(form, vectors, task, inside, fitting.seed)
        strengths = _strengths(folds.mean, task, splits, groups, fitting)
        for steps, parameters in folds.path(strengths, STEPS):
            for logits, c in zip(folds.out_of_fold(parameters), strengths, strict=True):
                found[steps, c, pooling] = cv_auroc(task.labels, splits, logits), logits
    # of equals the one with the fewest steps, then the most regularised
    steps, c, pooling = max(found, key=lambda key: (round(found[key][0], 6), -key[0], -key[1]))
    whole = _Folds(form, inputs[pooling], task, np.ones_like(inside[:1]), fitting.seed)
    ((_, parameters),) = whole.path([c], [steps])
    weights = {name: values[0, 0].double().numpy() for name, values in parameters.items()}
    weights |= {"offset": whole.shift[0] + whole.centre, "scale": whole.scale[0]}
    logits = whole.logits(parameters, np.arange(len(groups)))[0, 0]
    auroc, out_of_fold = found[steps, c, pooling]
    c_tried = sorted(key[1] for key in found if key[0] == steps and key[2] == pooling)
    return Descended(pooling, c, c_tried, steps, auroc, logits, out_of_fold, weights)


def _strengths(mean: np.ndarray, task: Task, splits: list[Split], groups: np.ndarray, fitting: Fitting) -> list[float]:
    """The C that is best for linear classifiers on mean vectors (n, width), and a tenth of it, if any may be chosen."""
    alone = replace(task, train=np.arange(len(mean)), splits=splits)
    c = fit({"mean": mean}, Model(StandardScaler), alone, groups[task.train], fitting)[None].c
    return [c] if len(fitting.c_grid) == 1 else [c / 10, c]


class _Folds:
    """Classifiers of one form, fitted on the rows inside each of F folds of a task's training prompts."""

    def __init__(self, form: Form, inputs: Inputs, task: Task, inside: np.ndarray, seed: int) -> None:
        """inside: bool (F, n). Vectors are scaled so that mean vectors inside a fold have mean 0 and variance 1."""
        self.form, self.inputs, self.task, self.inside, self.seed = form, inputs, task, inside, seed
        mean = means(inputs, task.train)
        self.centre = mean.mean(axis=0, dtype=np.float64).astype(np.float32)  # products would lose columns far from 0
        self.mean = mean - self.centre
        scalers = [StandardScaler().fit(self.mean[rows]) for rows in inside]
        self.shift, self.scale = (np.stack([getattr(each, name) for each in scalers]) for name in ("mean_", "scale_"))

    def linear(self, c_grid: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Fit linear classifiers on mean vectors: coefficients (F, C, width) and intercepts (F, C)."""
        features = Features(self.mean, len(self.inside))
        return logistic(features, self.task.labels, self.inside, self.shift, self.scale, c_grid, TOLERANCE)

    def path(self, strengths: Sequence[float], steps: Sequence[int]) -> Iterator[tuple[int, Parameters]]:
        """Fit for some C; yield the parameters after these numbers of steps, which are ascending."""
        coefficient, intercept = (torch.from_numpy(each).float() for each in self.linear(strengths))
        parameters = self.form.start(coefficient, intercept, self.seed)
        adam = _Adam(parameters, min(MOST, RATE / self.mean.shape[1]))
        batches = self._batches()
        for number in range(steps[-1] + 1):
            if number in steps:
                yield number, parameters
            if number < steps[-1]:
                adam.step(self._gradients(parameters, next(batches), torch.tensor(strengths)))

    def logits(self, parameters: Parameters, prompts: np.ndarray) -> np.ndarray:
        """Return the logits of prompts, float64 (F, C, prompts)."""
        with torch.no_grad():
            parts = [self._logits(parameters, some) for some in chunks(prompts)]
        return torch.cat(parts).permute(1, 2, 0).double().numpy()

    def out_of_fold(self, parameters: Parameters) -> np.ndarray:
        """Return the logits of each training prompt by the fold that it is outside of, (C, n)."""
        fold = self.inside.argmin(axis=0)
        return self.logits(parameters, self.task.train)[fold, :, np.arange(len(fold))].T

    def _batches(self) -> Iterator[np.ndarray]:
        """Positions in task.train, in another order each time that all have been drawn."""
        rng = np.random.default_rng(self.seed)
        while True:
            yield from chunks(rng.permutation(len(self.task.train)))

    def _logits(self, parameters: Parameters, prompts: np.ndarray) -> Tensor:
        """Of a few prompts, (prompts, F, C)."""
        x, prompt = self.inputs.of(prompts)
        directions = parameters["directions"] / torch.from_numpy(self.scale).float()[:, None, :, None]
        folds, strengths, width, m = directions.shape
        z = x.sub_(torch.from_numpy(self.centre)) @ directions.permute(2, 0, 1, 3).reshape(width, -1)
        shift = (torch.from_numpy(self.shift).float()[:, None, :, None] * directions).sum(dim=2)
        return self.form.logits(z.unflatten(1, (folds, strengths, m)) - shift, parameters, prompt, len(prompts))

    def _gradients(self, parameters: Parameters, batch: np.ndarray, c: Tensor) -> Parameters:
        """Of each fit's mean log loss and penalty, estimated from positions in task.train."""
        variables = {name: values.detach().requires_grad_() for name, values in parameters.items()}
        logits = self._logits(variables, self.task.train[batch])
        target = torch.from_numpy(self.task.labels[batch]).float()[:, None, None].expand_as(logits)
        loss = binary_cross_entropy_with_logits(logits, target, reduction="none")
        used = torch.from_numpy(self.inside[:, batch].T).float()[:, :, None]
        rows = torch.from_numpy(self.inside.sum(axis=1)).float()[:, None]
        total = (used * loss).sum(dim=0) * (self.inside.shape[1] / len(batch))
        penalty = self.form.penalty(variables) / (2 * c)
        gradients = torch.autograd.grad(((total + penalty) / rows).sum(), list(variables.values()))
        return dict(zip(variables, gradients, strict=True))


class _Adam:
    """Adam. torch's own takes longer to import than all of this."""

    def __init__(self, parameters: Parameters, rate: float) -> None:
        self.parameters, self.rate, self.steps = parameters, rate, 0
        self.mean = {name: torch.zeros_like(values) for name, values in parameters.items()}
        self.square = {name: torch.zeros_like(values) for name, values in parameters.items()}

    def step(self, gradients: Parameters) -> None:
        """Change the parameters in place."""
        self.steps += 1
        first, second = (1 - decay**self.steps for decay in DECAYS)
        for name, gradient in gradients.items():
            self.mean[name].lerp_(gradient, 1 - DECAYS[0])
            self.square[name].lerp_(gradient.square(), 1 - DECAYS[1])
            root = (self.square[name] / second).sqrt_().add_(TINY)
            self.parameters[name].addcdiv_(self.mean[name], root, value=-self.rate / first)
