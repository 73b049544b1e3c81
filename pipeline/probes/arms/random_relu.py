"""Random features of the pooled activations, as many as an SAE has latents: what width and non-linearity give alone.

A feature is relu(x direction + bias), x being the mean-pooled activations, standardised. Directions and biases are
drawn, not learned. Means and variances are those of all training prompts, whose labels they do not know.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import Arm, Scored
from pipeline.probes.fit import Fitting
from pipeline.probes.models import Model
from pipeline.probes.task import Task

SIZE = 10.0  # root mean square of the features' norm: what suits the usual grid of C


class RandomRelu:
    """Makes the features of mean-pooled activations; of those of the first pooling, where there is no mean."""

    def __init__(self, dense: Mapping[str, np.ndarray], train: np.ndarray, features: int, seed: int) -> None:
        """dense: the activations of all prompts (N, width), by pooling; train: which prompts are of train, bool (N)."""
        self.pooling = "mean" if "mean" in dense else next(iter(dense))
        self.pooled, self.seed = dense[self.pooling], seed
        self.input = StandardScaler().fit(self.pooled[train])
        self.directions, self.biases = random_directions(self.pooled.shape[1], features, seed)
        self.output = StandardScaler().fit(self._raw(self.pooled[train]))
        self.scale = self.output.scale_ * np.sqrt(features) / SIZE

    def features(self) -> dict[str, np.ndarray]:
        """Return the features of all prompts, float32 (N, features), by the name of the pooling."""
        made = self._raw(self.pooled)
        made -= self.output.mean_.astype(np.float32)
        made /= self.scale.astype(np.float32)
        return {self.pooling: made}

    def _raw(self, pooled: np.ndarray) -> np.ndarray:
        made = self.input.transform(pooled).astype(np.float32) @ self.directions
        made += self.biases
        return np.maximum(made, 0, out=made)

    def weights(self) -> dict[str, np.ndarray]:
        """What scales activations and features, of which `random_directions` makes the rest."""
        scaling = {"input_offset": self.input.mean_, "input_scale": self.input.scale_}
        return scaling | {"offset": self.output.mean_, "scale": self.scale}


def random_directions(width: int, features: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw directions (width, features) of norm about 1 and biases (features), float32."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((width, features), dtype=np.float32) / np.float32(np.sqrt(width))
    return directions, rng.standard_normal(features, dtype=np.float32)


class _RandomReluArm:
    """The arm `random_relu`; fitted in the balanced setting alone."""

    name = "random_relu"
    _arm = Arm(
        name,
        lambda views: views["random_relu"].features(),
        Model(None),
        describe=lambda views, prepare: {"seed": views["random_relu"].seed},
    )

    def is_for(self, task: Task) -> bool:
        return self._arm.is_for(task)

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """views["random_relu"]: a RandomRelu."""
        for scored in self._arm.scores(views, task, groups, fitting):
            yield replace(scored, weights=scored.weights | views["random_relu"].weights())


ARMS = [_RandomReluArm()]
