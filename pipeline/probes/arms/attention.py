"""A dense probe that learns which tokens to look at: attention pooling with one query.

A prompt's logit is sum over its tokens of softmax(x q)_t (x w)_t + b, with x standardised and reduced to its first
principal components. It begins as the mean-pooled probe (q = 0).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pipeline.errors import UserError
from pipeline.probes.arms.base import Scored
from pipeline.probes.fit import Fitting, folds_of
from pipeline.probes.metrics import auroc
from pipeline.probes.task import FULL, Task

COMPONENTS = 128
STEPS = 60  # of L-BFGS, at most


@dataclass(frozen=True)
class Tokens:
    """Token activations of all prompts. x (T, c); prompt (T): which of the N prompts each token is of."""

    x: Tensor
    prompt: Tensor
    prompts: int


class Attention:
    """The arm `attention`; fitted in the balanced setting alone."""

    name = "attention"

    def is_for(self, task: Task) -> bool:
        return task.setting == FULL

    def scores(self, views: Any, task: Task, groups: np.ndarray, how: Fitting) -> Iterator[tuple[str, Scored]]:
        """views["tokens"]: a function that makes Tokens of the rows whose components are taken."""
        tokens: Tokens = views["tokens"](task.train)
        splits = folds_of(task, groups, how)
        means = {}
        for c in how.c_grid:
            aurocs = []
            for inside, outside in splits:
                logits = _fit(tokens, task.train[inside], task.labels[inside], c)
                aurocs.append(auroc(task.labels[outside], logits[task.train[outside]], np.ones((1, len(outside))))[0])
            if np.isnan(aurocs).all():
                raise UserError("every fold has only one class: lower probe.folds, or use more data")
            means[c] = float(np.nanmean(aurocs))
        best = max(means, key=lambda c: (round(means[c], 6), -c))
        logits = _fit(tokens, task.train, task.labels, best)
        choices = {"C": best, "cv_auroc": round(means[best], 4), "train_prompts": len(task.train)}
        yield self.name, Scored(expit(logits), choices)


def _fit(tokens: Tokens, rows: np.ndarray, labels: np.ndarray, c: float) -> np.ndarray:
    """Logits of all prompts (N) of a probe fitted on `rows`."""
    inside = torch.zeros(tokens.prompts, dtype=torch.bool)
    inside[torch.from_numpy(rows)] = True
    mask = inside[tokens.prompt]
    x, prompt = tokens.x[mask], tokens.prompt[mask]
    target = torch.zeros(tokens.prompts)
    target[torch.from_numpy(rows)] = torch.from_numpy(labels).float()
    query_weight = torch.zeros(x.shape[1], 2, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([query_weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = _logits(x, prompt, tokens.prompts, query_weight, bias)
        fitted = torch.nn.functional.binary_cross_entropy_with_logits(logits[inside], target[inside], reduction="sum")
        value = c * fitted + query_weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return _logits(tokens.x, tokens.prompt, tokens.prompts, query_weight, bias).double().numpy()


def _logits(x: Tensor, prompt: Tensor, prompts: int, query_weight: Tensor, bias: Tensor) -> Tensor:
    asked, said = (x @ query_weight).unbind(dim=1)
    largest = torch.full((prompts,), -torch.inf).scatter_reduce(0, prompt, asked.detach(), "amax")
    weight = (asked - largest[prompt]).exp()
    total = torch.zeros(prompts).index_add(0, prompt, weight)
    return torch.zeros(prompts).index_add(0, prompt, weight * said) / total.clamp_min(1e-12) + bias


ARMS = [Attention()]
