"""Architectures whose sparsity comes from a penalty."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pipeline.sae.architectures.base import Architecture, Memory, Step, Weights

FIRST_COEFFICIENT = 1e-3
DESCENT = 0.5
DIAL_TURNS = 30.0  # how often the coefficient could grow e-fold in a whole training
THRESHOLD_SPEED = 10.0  # how much faster log thresholds move than Adam's learning rate lets weights move
BANDWIDTH = 0.2  # in units of the size that each of k equal latents would have


class Penalised(Architecture):
    """Sparsity by a penalty, whose coefficient is adjusted during training until k latents are active on average.

    At first many latents are active, so these architectures use dense products.
    """

    unit_decoder = True  # else a penalty could be evaded by small latents and a large decoder

    def dial(self, memory: Memory) -> Tensor:
        return memory.dials.setdefault("coefficient", torch.tensor(FIRST_COEFFICIENT))

    def remember(self, memory: Memory, step: Step, tokens: int) -> None:
        super().remember(memory, step, tokens)
        made = memory.dials.setdefault("steps", torch.zeros(()))
        made += 1
        # from half of the latents down to k in the first part of the training, so that the penalty never runs ahead
        ahead = max(0.0, 1 - made.item() / (DESCENT * self.steps))
        wanted = self.k * (self.width / (2 * self.k)) ** ahead
        off = math.log(max(step.l0, 1e-3) / wanted)
        memory.dials["coefficient"] *= math.exp(min(DIAL_TURNS / self.steps, 0.1) * max(-1.0, min(1.0, off)))

    def step(self, weights: Weights, x_BD: Tensor, memory: Memory, window: int) -> Step:
        pre_BL = (x_BD - weights["b_dec"]) @ weights["W_enc"].T
        latents, penalty, extra = self.activate(weights, x_BD, pre_BL)
        fvu = self.fvu(x_BD, latents @ weights["W_dec"] + weights["b_dec"])
        loss = fvu + self.dial(memory).to(x_BD.device) * penalty + extra
        firing = latents.detach() > 0
        return Step(loss, fvu, float(firing.sum()) / len(x_BD), firing.any(dim=0))

    @abstractmethod
    def activate(self, weights: Weights, x_BD: Tensor, pre_BL: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return latents (B, L), their penalty per token, and any further loss. `pre_BL` is without a bias."""

    def l1(self, latents: Tensor) -> Tensor:
        """Return the mean L1 norm of a token's latents, in units of the activations' norm."""
        return latents.sum(dim=1).mean() / math.sqrt(self.variance)


class Relu(Penalised):
    """ReLU latents with an L1 penalty.

    Bricken et al. 2023, "Towards Monosemanticity", https://transformer-circuits.pub/2023/monosemantic-features
    """

    saved_as = "standard"

    def activate(self, weights: Weights, x_BD: Tensor, pre_BL: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        latents = (pre_BL + weights["b_enc"]).relu()
        return latents, self.l1(latents), 0.0


class Gated(Penalised):
    """A gate decides which latents are active, and a magnitude how strongly, so that the penalty shrinks no magnitude.

    Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders",
    https://arxiv.org/abs/2404.16014
    """

    saved_as = "gated"

    def initial(self, d: int, generator: torch.Generator) -> Weights:
        weights = super().initial(d, generator)
        del weights["b_enc"]
        return weights | {name: torch.zeros(self.width) for name in ("b_gate", "b_mag", "r_mag")}

    def activate(self, weights: Weights, x_BD: Tensor, pre_BL: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        gate = pre_BL + weights["b_gate"]
        latents = (gate > 0) * (pre_BL * weights["r_mag"].exp() + weights["b_mag"]).relu()
        through_gate = gate.relu()
        # the decoder is not to bend to the gate (section 3.3)
        frozen = through_gate @ weights["W_dec"].detach() + weights["b_dec"].detach()
        return latents, self.l1(through_gate), self.fvu(x_BD, frozen)


class JumpRelu(Penalised):
    """A learned threshold per latent and a penalty on L0 itself, both trained by straight-through estimates.

    Rajamanoharan et al. 2024, "Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse Autoencoders",
    https://arxiv.org/abs/2407.14435
    """

    saved_as = "jumprelu"

    def initial(self, d: int, generator: torch.Generator) -> Weights:
        first = math.log(0.1 * math.sqrt(self.variance / self.k)) / THRESHOLD_SPEED
        return super().initial(d, generator) | {"log_threshold": torch.full((self.width,), first)}

    def activate(self, weights: Weights, x_BD: Tensor, pre_BL: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        pre_BL = (pre_BL + weights["b_enc"]).relu()
        threshold = self._threshold(weights)
        bandwidth = BANDWIDTH * math.sqrt(self.variance / self.k)
        jump = _Step.apply(pre_BL, threshold, bandwidth)
        latents = _JumpRelu.apply(pre_BL, threshold, bandwidth)
        return latents, jump.sum(dim=1).mean() / self.k, 0.0

    def thresholds(self, weights: Weights, batches: Any, tokens: int) -> Tensor:
        return self._threshold(weights)

    def _threshold(self, weights: Weights) -> Tensor:
        return (THRESHOLD_SPEED * weights["log_threshold"]).exp()


class _Step(torch.autograd.Function):
    """1 where x > threshold. The threshold's gradient is that of a rectangle of the given bandwidth around it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward((x - threshold).abs() < bandwidth / 2)
        ctx.bandwidth = bandwidth
        return (x > threshold).to(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (near,) = ctx.saved_tensors
        return None, -(near * grad).sum(dim=0) / ctx.bandwidth, None


class _JumpRelu(torch.autograd.Function):
    """x where x > threshold, else 0; gradients as of equation 11."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        above, near = x > threshold, (x - threshold).abs() < bandwidth / 2
        ctx.save_for_backward(above, near, threshold)
        ctx.bandwidth = bandwidth
        return x * above

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        above, near, threshold = ctx.saved_tensors
        return above * grad, -threshold / ctx.bandwidth * (near * grad).sum(dim=0), None
