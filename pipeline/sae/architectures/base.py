"""What makes an architecture: which latents are active, and what beside the reconstruction training asks of them.

B: tokens of a batch, d: width of the activations, L: latents. Activations come centred on their mean and scaled to a
mean norm of sqrt(d).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass
class Memory:
    """What an architecture carries from step to step beside its weights, as tensors that a checkpoint can hold.

    last_fired (L): tokens seen since each latent was active. dials: small numbers, such as a coefficient.
    """

    last_fired: Tensor
    dials: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """The outcome of one batch: the loss to minimise, the fraction of variance unexplained, and what was active."""

    loss: Tensor
    fvu: Tensor
    l0: float
    fired: Tensor  # bool (L)


class Architecture(ABC):
    """Weights: W_enc (L, d), W_dec (L, d), b_enc (L), b_dec (d), and what a subclass adds."""

    saved_as: str  # SAELens's name of what is left after training
    unit_decoder: bool  # whether the decoder's rows are kept at norm 1 during training; afterwards they are in any case

    def __init__(self, width: int, k: int, *, aux_coefficient: float, variance: float, steps: int) -> None:
        """k: active latents a token, wanted on average; variance: of the activations, mean |x|^2; steps: planned."""
        self.width = width
        self.k = k
        self.aux_coefficient = aux_coefficient
        self.variance = variance
        self.steps = steps

    def initial(self, d: int, generator: torch.Generator) -> Weights:
        """Decoder rows of random directions, the encoder equal to the decoder, biases 0."""
        decoder = torch.randn(self.width, d, generator=generator)
        decoder /= decoder.norm(dim=1, keepdim=True)
        return {"W_enc": decoder.clone(), "b_enc": torch.zeros(self.width), "W_dec": decoder, "b_dec": torch.zeros(d)}

    @abstractmethod
    def step(self, weights: Weights, x_BD: Tensor, memory: Memory, window: int) -> Step:
        """The loss of a batch in train mode. window: tokens without firing after which a latent is dead."""

    def remember(self, memory: Memory, step: Step, tokens: int) -> None:
        """Take note of a step that was made."""
        memory.last_fired += tokens
        memory.last_fired[step.fired] = 0

    def thresholds(self, weights: Weights, batches: Any, tokens: int) -> Tensor | None:
        """The activation (L) above which each latent is active once trained, for those saved as jumprelu.

        `batches` yields the `tokens` train tokens (B, d).
        """
        return None

    def fvu(self, x_BD: Tensor, reconstruction_BD: Tensor) -> Tensor:
        return (x_BD - reconstruction_BD).square().sum(dim=1).mean() / self.variance
