"""A dense probe that learns which tokens to look at: attention pooling with one query.

A prompt's logit is sum over its tokens of softmax(x q)_t (x w)_t + b, with x standardised and reduced to its first
principal components. It begins as the mean-pooled probe (q = 0).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.judging.metrics import value_of
from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Scored
from pipeline.probes.fit import Fitting, folds_of
from pipeline.probes.task import Task

COMPONENTS = 128
STEPS = 15  # of L-BFGS for each C, at most


@dataclass(frozen=True)
class Tokens:
    """Token activations of all prompts, x = (activation - centre) projection.

    x (T, c); prompt (T): which of the N prompts each token is of; centre (width), projection (width, c).
    """

    x: Tensor
    prompt: Tensor
    prompts: int
    centre: Tensor
    projection: Tensor


class Attention:
    """The arm `attention`; fitted in the balanced setting alone."""

    name = "attention"

    def is_for(self, task: Task) -> bool:
        return task.setting == FULL

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """views["tokens"]: a function that makes Tokens of the rows whose components are taken."""
        tokens: Tokens = views["tokens"](task.train)
        c_grid = sorted(fitting.c_grid)
        found: list[list[float]] = []
        for inside, outside in folds_of(task, groups, fitting):
            path = [
                _logits(tokens, fitted) for fitted in _path(tokens, task.train[inside], task.labels[inside], c_grid)
            ]
            found.append([value_of("auroc", task.labels[outside], z[task.train[outside]]) for z in path])
        if np.isnan(found).all():
            raise UserError("every fold has only one class: lower probe.folds, or use more data")
        means = np.nanmean(found, axis=0).round(6)
        best = int(means.argmax())  # of equals the most regularised
        *_, fitted = _path(tokens, task.train, task.labels, c_grid[: best + 1])
        choices = {"C": c_grid[best], "cv_auroc": round(float(means[best]), 4), "train_prompts": len(task.train)}
        weights = dict(zip(("query", "coefficient"), fitted[0].T.numpy(), strict=True))
        weights |= {"intercept": fitted[1].numpy(), "projection": tokens.projection.numpy()}
        weights["input_offset"] = tokens.centre.numpy()
        yield Scored(expit(_logits(tokens, fitted)), choices, weights)


def _path(
    tokens: Tokens, rows: np.ndarray, labels: np.ndarray, c_grid: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Query and coefficient (c, 2), and intercept (1), fitted on `rows` for ascending C, each started from the last."""
    inside = torch.zeros(tokens.prompts, dtype=torch.bool)
    inside[torch.from_numpy(rows)] = True
    mask = inside[tokens.prompt]
    x, prompt = tokens.x[mask], tokens.prompt[mask]
    target = torch.zeros(tokens.prompts)
    target[torch.from_numpy(rows)] = torch.from_numpy(labels).float()
    start = np.zeros(2 * x.shape[1] + 1)
    for c in c_grid:

        def loss(flat: np.ndarray, c: float = c) -> tuple[float, np.ndarray]:
            variables = torch.from_numpy(flat).float().requires_grad_()
            logits = _attend(x, prompt, tokens.prompts, *_parts(variables))[inside]
            fitted = torch.nn.functional.binary_cross_entropy_with_logits(logits, target[inside], reduction="sum")
            value = c * fitted + variables[:-1].square().sum() / 2
            value.backward()
            assert variables.grad is not None
            return value.item(), variables.grad.double().numpy()

        # not torch's own L-BFGS: importing it takes as long as all of this
        start = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
        yield _parts(torch.from_numpy(start).float())


def _parts(variables: Tensor) -> tuple[Tensor, Tensor]:
    """Query and coefficient (c, 2), and intercept (1)."""
    return variables[:-1].unflatten(0, (-1, 2)), variables[-1:]


def _logits(tokens: Tokens, fitted: tuple[Tensor, Tensor]) -> np.ndarray:
    """Of all prompts (N), float64."""
    return _attend(tokens.x, tokens.prompt, tokens.prompts, *fitted).double().numpy()


def _attend(x: Tensor, prompt: Tensor, prompts: int, query_weight: Tensor, bias: Tensor) -> Tensor:
    asked, said = (x @ query_weight).unbind(dim=1)
    largest = torch.full((prompts,), -torch.inf).scatter_reduce(0, prompt, asked.detach(), "amax")
    weight = (asked - largest[prompt]).exp()
    total = torch.zeros(prompts).index_add(0, prompt, weight)
    return torch.zeros(prompts).index_add(0, prompt, weight * said) / total.clamp_min(1e-12) + bias


ARMS = [Attention()]
