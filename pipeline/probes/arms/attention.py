"""Dense probes that learn which tokens to look at. Each contains the mean-pooled probe, and begins as the fitted one.

With x for a token's scaled activation, d and others for learned directions and b for the intercept, the logit is

attention:  sum over tokens of softmax(x query) (x d) + b
softmax:    sum over tokens of softmax(sharpness (x d)) (x d) + b
multi-max:  mean over tokens of (x d) + sum over heads of gain (maximum over tokens of (x head)) + b

`directions` are d and query, d alone, d and the heads. The sum of maxima is that of "Building Production-Ready Probes
For Gemini", https://arxiv.org/abs/2601.11516, which has no mean beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Scored
from pipeline.probes.descent import Form, Parameters, descend
from pipeline.probes.fit import Fitting
from pipeline.probes.task import Task

HEADS = 8  # of multi-max


class _OfDirections:
    def penalty(self, parameters: Parameters) -> Tensor:
        return parameters["directions"].square().sum(dim=(2, 3))


class Attention(_OfDirections):
    """Weights of tokens by a query of their own."""

    def start(self, coefficient: Tensor, intercept: Tensor, seed: int) -> Parameters:
        return {"directions": torch.stack([coefficient, torch.zeros_like(coefficient)], dim=3), "intercept": intercept}

    def logits(self, z: Tensor, parameters: Parameters, prompt: Tensor, prompts: int) -> Tensor:
        said, asked = z.unbind(dim=3)
        return averaged(said, asked, prompt, prompts) + parameters["intercept"]


class Softmax(_OfDirections):
    """Weights of tokens by the score that is averaged."""

    def start(self, coefficient: Tensor, intercept: Tensor, seed: int) -> Parameters:
        sharpness = torch.zeros_like(intercept)
        return {"directions": coefficient[..., None].clone(), "sharpness": sharpness, "intercept": intercept}

    def logits(self, z: Tensor, parameters: Parameters, prompt: Tensor, prompts: int) -> Tensor:
        said = z[..., 0]
        return averaged(said, parameters["sharpness"] * said, prompt, prompts) + parameters["intercept"]


class MultiMax:
    """The mean of one score, and weighted maxima of others."""

    def start(self, coefficient: Tensor, intercept: Tensor, seed: int) -> Parameters:
        width = coefficient.shape[2]
        drawn = np.random.default_rng(seed).normal(size=(width, HEADS)) / np.sqrt(width)
        heads = torch.from_numpy(drawn).float().expand(*coefficient.shape, HEADS)
        nothing = torch.zeros(*intercept.shape, HEADS)
        return {
            "directions": torch.cat([coefficient[..., None], heads], dim=3),
            "gains": nothing,
            "intercept": intercept,
        }

    def logits(self, z: Tensor, parameters: Parameters, prompt: Tensor, prompts: int) -> Tensor:
        said, heads = z[..., 0], z[..., 1:]
        mean = averaged(said, torch.zeros_like(said), prompt, prompts)
        return mean + (parameters["gains"] * largest(heads, prompt, prompts)).sum(dim=3) + parameters["intercept"]

    def penalty(self, parameters: Parameters) -> Tensor:
        return parameters["directions"][..., 0].square().sum(dim=2) + parameters["gains"].square().sum(dim=2)


def averaged(values: Tensor, logits: Tensor, prompt: Tensor, prompts: int) -> Tensor:
    """Average values of tokens (T, ...) over each prompt, (prompts, ...), with weights softmax(logits)."""
    weight = (logits - largest(logits.detach(), prompt, prompts)[prompt]).exp()
    total = torch.zeros(prompts, *values.shape[1:])
    return total.index_add(0, prompt, weight * values) / total.index_add(0, prompt, weight)


def largest(values: Tensor, prompt: Tensor, prompts: int) -> Tensor:
    """Take the largest of values of tokens (T, ...) in each prompt, (prompts, ...)."""
    place = prompt.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    return torch.full((prompts, *values.shape[1:]), -torch.inf).scatter_reduce(0, place, values, "amax")


@dataclass(frozen=True)
class TokenArm:
    """A probe on tokens; fitted in the balanced setting alone."""

    name: str
    form: Form

    def is_for(self, task: Task) -> bool:
        return task.setting == FULL

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """views["tokens"]: the prompts' Tokens."""
        found = descend(self.form, {"tokens": views["tokens"]}, task, groups, fitting)
        yield Scored(expit(found.logits), found.choices(), found.weights, out_of_fold=found.out_of_fold)


ARMS = [TokenArm("attention", Attention()), TokenArm("softmax", Softmax()), TokenArm("multi-max", MultiMax())]
