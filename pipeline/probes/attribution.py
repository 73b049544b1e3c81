"""Compute what each token and each feature contributes to the logit of a linear classifier on pooled features."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from pipeline.activations.pooling import POOLINGS
from pipeline.core.errors import UserError
from pipeline.core.files import damaged
from pipeline.probes.choices import choices_of


@dataclass(frozen=True)
class Linear:
    """A linear classifier: logit = weight . pooled features + bias, in float64."""

    pooling: str
    """`mean`, `max` or `last`: how the features x_TF (tokens, width) of a prompt's counted tokens become one vector."""
    weight: np.ndarray
    """(width), for features that are not scaled."""
    bias: float
    """The logit where all pooled features are 0."""

    @classmethod
    def load(cls, folder: Path, width: int) -> "Linear":
        """Read the classifier of an arm that only scales its features, from the arm's folder in models/probes.

        Raises: UserError when files are missing or damaged, or are not of such a classifier on `width` features.
        """
        file = folder / "probe.safetensors"
        choices = choices_of(folder)
        pooling = choices.get("pooling")
        try:
            stored = load_file(file)
        except (SafetensorError, OSError) as error:
            raise damaged(file, error, "fit the probe again") from None
        wanted = {"coefficient", "intercept", "offset", "scale"}
        if pooling not in POOLINGS or set(stored) != wanted or "features" in choices:
            raise UserError(
                f"{folder} is not of a linear classifier on pooled features: take that of arm dense or sae, or run "
                "'dvc repro' to fit it again"
            )
        if len(stored["coefficient"]) != width:
            raise UserError(
                f"{file} is for {len(stored['coefficient'])} features, not {width}: run 'dvc repro' to fit the probe "
                "again"
            )
        weight = stored["coefficient"] / stored["scale"]
        return cls(pooling, weight, float(stored["intercept"][0] - weight @ stored["offset"]))

    def pooled(self, x_TF: np.ndarray) -> np.ndarray:
        """Pool the features of one prompt, float64 (width)."""
        return POOLINGS[self.pooling](np.asarray(x_TF, dtype=np.float64), np.array([0]))[0]

    def logit(self, x_TF: np.ndarray) -> float:
        """Return the logit of one prompt."""
        return float(self.pooled(x_TF) @ self.weight + self.bias)

    def contributions(self, x_TF: np.ndarray) -> np.ndarray:
        """Split the logit of one prompt into what each token and feature contributes, float64 (tokens, width).

        With the bias the contributions sum to the logit, up to rounding. Mean pooling credits each of T tokens with 1/T
        of its feature. Max pooling credits only the first token that reaches the maximum. Pooling `last` credits only
        the last token.
        """
        x_TF = np.asarray(x_TF, dtype=np.float64)
        tokens, width = x_TF.shape
        if not tokens:
            return np.zeros_like(x_TF)
        if self.pooling == "mean":
            return x_TF * self.weight / tokens
        rows = x_TF.argmax(axis=0) if self.pooling == "max" else np.full(width, tokens - 1)
        columns = np.arange(width)
        parts = np.zeros_like(x_TF)
        parts[rows, columns] = x_TF[rows, columns] * self.weight
        return parts

    def by_token(self, x_TF: np.ndarray) -> np.ndarray:
        """Return what each token contributes, summed over features, (tokens)."""
        return np.asarray(self.contributions(x_TF).sum(axis=1))

    def by_feature(self, x_TF: np.ndarray) -> np.ndarray:
        """Return what each feature contributes, summed over tokens, (width)."""
        return self.pooled(x_TF) * self.weight


@dataclass(frozen=True)
class Classifier:
    """A linear classifier together with the function that computes its features."""

    linear: Linear
    """The classifier on pooled features."""
    features: Callable[[Tensor], Tensor]
    """Turns activations x_TD (tokens, d) into features (tokens, width)."""

    def logit(self, x_TD: Tensor) -> float:
        """Return the logit of a prompt with these activations."""
        return self.linear.logit(self.features(x_TD).numpy())

    def by_token(self, x_TD: Tensor) -> np.ndarray:
        """Return what each token contributes to the logit, (tokens)."""
        return self.linear.by_token(self.features(x_TD).numpy())
