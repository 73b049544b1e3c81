"""A kernel machine on pooled activations: radial basis functions around some of the training prompts (Nystroem).

Logistic regression on features whose products are those of the kernel exp(-gamma |x - y|^2) of standardised
activations x and y, as far as the landmarks span it (Williams & Seeger 2001, "Using the Nyström Method to Speed Up
Kernel Machines").
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.kernel_approximation import Nystroem
from sklearn.preprocessing import StandardScaler

from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Arm, Scored
from pipeline.probes.fit import Fitting
from pipeline.probes.models import Matrix, Model
from pipeline.probes.task import Task

LANDMARKS = 1000  # at most
SHARE = 4  # of training prompts of which one is a landmark, where they are few
GAMMAS = (1.0, 0.25, 4.0)  # over the width
SIZE = 10.0  # norm of the features of a prompt that the landmarks span: what suits the usual grid of C


class Kernel(TransformerMixin, BaseEstimator):
    """Features whose products are those of a radial kernel; gamma: in units of 1 / width."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def fit(self, matrix: Matrix, labels: object = None) -> "Kernel":
        self.scaler_ = StandardScaler().fit(matrix)
        landmarks = min(LANDMARKS, -(-len(matrix) // SHARE))
        kernel = Nystroem(gamma=self.gamma / matrix.shape[1], n_components=landmarks, random_state=0)
        self.kernel_ = kernel.fit(self.scaler_.transform(matrix))
        return self

    def transform(self, matrix: Matrix) -> np.ndarray:
        return SIZE * self.kernel_.transform(self.scaler_.transform(matrix))

    def weights(self, k: int) -> dict[str, np.ndarray]:
        """What makes the features: SIZE exp(-gamma |x - landmarks|^2) mixing, for x standardised by input_*."""
        return {
            "landmarks": self.kernel_.components_,
            "gamma": np.array([self.kernel_.gamma]),
            "mixing": np.ascontiguousarray(SIZE * self.kernel_.normalization_.T),
            "input_offset": self.scaler_.mean_,
            "input_scale": self.scaler_.scale_,
        }


class Rbf:
    """The arm `rbf`; fitted in the balanced setting alone."""

    name = "rbf"

    def is_for(self, task: Task) -> bool:
        return task.setting == FULL

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """views["dense"]: pooled activations of all prompts (N, width), by pooling.

        Cross-validation chooses the pooling with the first of GAMMAS, then gamma with that pooling.
        """
        (first,) = _of_gamma(GAMMAS[0]).scores(views, task, groups, fitting)
        pooling = first.choices["pooling"]
        chosen = {"dense": {pooling: views["dense"][pooling]}}
        others = [scored for gamma in GAMMAS[1:] for scored in _of_gamma(gamma).scores(chosen, task, groups, fitting)]
        yield max([first, *others], key=lambda scored: scored.choices["cv_auroc"])


def _of_gamma(gamma: float) -> Arm:
    return Arm(
        "rbf",
        lambda views: views["dense"],
        Model(None, partial(Kernel, gamma)),
        describe=lambda views, prepare: {"gamma_times_width": prepare.gamma},
    )


ARMS = [Rbf()]
