"""What each token and each feature contributes to the logit of a linear classifier on pooled features."""

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
    """logit = weight . pooled features + bias, in float64.

    pooling: of one prompt's token features x_TF (tokens, width), of the tokens that count;
    weight: (width), on features as they are.
    """

    pooling: str
    weight: np.ndarray
    bias: float

    @classmethod
    def load(cls, folder: Path, width: int) -> "Linear":
        """Read an arm's classifier, whose features are only scaled, from its folder in models/probes.

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
        """Of one prompt, float64 (width)."""
        return POOLINGS[self.pooling](np.asarray(x_TF, dtype=np.float64), np.array([0]))[0]

    def logit(self, x_TF: np.ndarray) -> float:
        return float(self.pooled(x_TF) @ self.weight + self.bias)

    def contributions(self, x_TF: np.ndarray) -> np.ndarray:
        """Float64 (tokens, width): with the bias they sum to the logit, exactly up to rounding.

        Of a mean every token has its T-th part; of a maximum the first token that reaches it has all; of the last
        token's features the last token has all.
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
        """The contributions of each token, (tokens)."""
        return np.asarray(self.contributions(x_TF).sum(axis=1))

    def by_feature(self, x_TF: np.ndarray) -> np.ndarray:
        """The contributions of each feature, (width)."""
        return self.pooled(x_TF) * self.weight


@dataclass(frozen=True)
class Classifier:
    """A linear classifier with what makes its features, (tokens, width), of activations x_TD (tokens, d)."""

    linear: Linear
    features: Callable[[Tensor], Tensor]

    def logit(self, x_TD: Tensor) -> float:
        return self.linear.logit(self.features(x_TD).numpy())

    def by_token(self, x_TD: Tensor) -> np.ndarray:
        """What each token contributes to the logit, (tokens)."""
        return self.linear.by_token(self.features(x_TD).numpy())
