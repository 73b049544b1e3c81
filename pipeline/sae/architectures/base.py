"""What makes an architecture: which latents are active, and what training asks beside a good reconstruction.

B is the number of tokens in a batch, d the width of the activations, L the number of latents. Activations come centred
on their mean and scaled to a mean norm of sqrt(d).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass
class Memory:
    """What an architecture carries from step to step beside its weights, as tensors that a checkpoint can hold."""

    last_fired: Tensor
    """(L): tokens seen since each latent was last active."""
    dials: dict[str, Tensor] = field(default_factory=dict)
    """Numbers that training adjusts, such as a coefficient."""


@dataclass(frozen=True)
class Step:
    """The outcome of one batch."""

    loss: Tensor
    fvu: Tensor
    l0: float
    fired: Tensor  # bool (L)


class Architecture(ABC):
    """The base class of all architectures.

    Its weights are W_enc (L, d), W_dec (L, d), b_enc (L), b_dec (d), and what a subclass adds.
    """

    saved_as: str  # SAELens's name of what is left after training
    unit_decoder: bool  # whether the decoder's rows are kept at norm 1 during training; afterwards they are in any case

    def __init__(self, width: int, k: int, *, aux_coefficient: float, variance: float, steps: int) -> None:
        """Set up the hyperparameters.

        Args:
            k: wanted mean number of active latents per token.
            variance: mean |x|^2 of the activations.
            steps: planned number of steps.
        """
        self.width = width
        self.k = k
        self.aux_coefficient = aux_coefficient
        self.variance = variance
        self.steps = steps

    def initial(self, d: int, generator: torch.Generator) -> Weights:
        """Return first weights: decoder rows in random directions, the encoder equal to the decoder, biases 0."""
        decoder = torch.randn(self.width, d, generator=generator)
        decoder /= decoder.norm(dim=1, keepdim=True)
        return {"W_enc": decoder.clone(), "b_enc": torch.zeros(self.width), "W_dec": decoder, "b_dec": torch.zeros(d)}

    @abstractmethod
    def step(self, weights: Weights, x_BD: Tensor, memory: Memory, window: int) -> Step:
        """Return the loss of a batch while training. `window`: tokens without firing after which a latent is dead."""

    def remember(self, memory: Memory, step: Step, tokens: int) -> None:
        """Note in `memory` that a step was made."""
        memory.last_fired += tokens
        memory.last_fired[step.fired] = 0

    def thresholds(self, weights: Weights, batches: Any, tokens: int) -> Tensor | None:
        """Return the activation (L) above which each latent is active once trained, for SAEs saved as jumprelu.

        `batches` yields the `tokens` train tokens, (B, d) at a time.
        """
        return None

    def fvu(self, x_BD: Tensor, reconstruction_BD: Tensor) -> Tensor:
        return (x_BD - reconstruction_BD).square().sum(dim=1).mean() / self.variance
