"""A perceptron with one hidden layer on pooled activations, beside the linear probe, which it contains and begins as.

The logit is x d + relu(x hidden + bias) . output + b, x being standardised. `directions` are d and those of the hidden
units; `output` begins as 0.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Scored
from pipeline.probes.descent import Parameters, descend
from pipeline.probes.fit import Fitting
from pipeline.probes.inputs import Vectors
from pipeline.probes.task import Task

HIDDEN = 32


class Perceptron:
    def start(self, coefficient: Tensor, intercept: Tensor, seed: int) -> Parameters:
        width = coefficient.shape[2]
        drawn = np.random.default_rng(seed).normal(size=(width, HIDDEN)) / np.sqrt(width)
        hidden = torch.from_numpy(drawn).float().expand(*coefficient.shape, HIDDEN)
        nothing = torch.zeros(*intercept.shape, HIDDEN)
        return {
            "directions": torch.cat([coefficient[..., None], hidden], dim=3),
            "bias": nothing,
            "output": nothing.clone(),
            "intercept": intercept,
        }

    def logits(self, z: Tensor, parameters: Parameters, prompt: Tensor, prompts: int) -> Tensor:
        hidden = (z[..., 1:] + parameters["bias"]).relu()
        return z[..., 0] + (hidden * parameters["output"]).sum(dim=3) + parameters["intercept"]

    def penalty(self, parameters: Parameters) -> Tensor:
        return parameters["directions"][..., 0].square().sum(dim=2) + parameters["output"].square().sum(dim=2)


class Mlp:
    """The arm `mlp`; fitted in the balanced setting alone."""

    name = "mlp"

    def is_for(self, task: Task) -> bool:
        return task.setting == FULL

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """views["dense"]: pooled activations of all prompts (N, width), by pooling."""
        inputs = {pooling: Vectors(matrix) for pooling, matrix in views["dense"].items()}
        found = descend(Perceptron(), inputs, task, groups, fitting)
        choices = {"pooling": found.pooling} | found.choices()
        yield Scored(expit(found.logits), choices, found.weights, out_of_fold=found.out_of_fold)


ARMS = [Mlp()]
