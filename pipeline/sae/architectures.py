"""What makes an architecture: which latents are active, and what beside the reconstruction training asks of them.

To add one, write a subclass of `Architecture` and register it in ARCHITECTURES. B: tokens of a batch, d: width of
the activations, L: latents. Activations come centred on their mean and scaled to a mean norm of sqrt(d).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.sae.sparse import Active, DecodeActive, EncodeActive, products

Weights = dict[str, Tensor]
Exact = Callable[[Active], Tensor]
HALF = (torch.float16, torch.bfloat16)


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


class TopK(Architecture):
    """The k largest latents of each token; dead latents learn the residual (AuxK).

    Gao et al. 2024, "Scaling and evaluating sparse autoencoders", https://arxiv.org/abs/2406.04093
    """

    saved_as = "topk"
    unit_decoder = False  # learns faster; what a latent adds is then its activation times the norm of its row

    def step(self, weights: Weights, x_BD: Tensor, memory: Memory, window: int) -> Step:
        with torch.no_grad():
            centred = x_BD - weights["b_dec"]
            norms = torch.linalg.vector_norm(weights["W_dec"], dim=1)
            pre_BL = encoder_product(centred, weights["W_enc"], weights["b_enc"], norms)

            def exact(active: Active) -> Tensor:
                values = products(active, centred, weights["W_enc"]) + weights["b_enc"][active.latents]
                return values * norms[active.latents]

            active, values = self.select(pre_BL, exact, memory)
            values = values / norms[active.latents]
        latents = EncodeActive.apply(values, centred, *(weights[n] for n in ("W_enc", "b_enc", "b_dec")), active).relu()
        fvu, loss = self.reconstruct(weights, x_BD, active, latents)
        dead = memory.last_fired > window
        if self.aux_coefficient and bool(dead.any()):
            residual = (x_BD - DecodeActive.apply(latents, weights["W_dec"], active) - weights["b_dec"]).detach()
            loss = loss + self.aux_coefficient * self.auxiliary(weights, x_BD, pre_BL, residual, dead)
        firing = latents.detach() > 0
        fired = torch.zeros(self.width, dtype=torch.bool, device=x_BD.device)
        fired[active.latents[firing]] = True
        return Step(loss, fvu, float(firing.sum()) / len(x_BD), fired)

    def select(self, pre_BL: Tensor, exact: Exact, memory: Memory) -> tuple[Active, Tensor]:
        """The active pairs of a batch and their pre-activations (nnz), both in units of what a latent adds.

        Pre-activations in half precision are only good for proposing candidates, which `exact` then evaluates.
        """
        if pre_BL.dtype not in HALF:
            latents = top_latents(pre_BL, self.k).sort(dim=1).values
            return Active.of_rows(latents, self.width), pre_BL.gather(1, latents).reshape(-1)
        wide = top_latents(pre_BL, min(self.k + max(self.k // 8, 4), self.width))
        candidates = Active.of_rows(wide, self.width)
        values = exact(candidates).view(wide.shape)
        values, best = values.topk(self.k, dim=1, sorted=False)
        latents, order = wide.gather(1, best).sort(dim=1)
        return Active.of_rows(latents, self.width), values.gather(1, order).reshape(-1)

    def reconstruct(self, weights: Weights, x_BD: Tensor, active: Active, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The fraction of variance unexplained, and the loss that it makes."""
        fvu = self.fvu(x_BD, DecodeActive.apply(latents, weights["W_dec"], active) + weights["b_dec"])
        return fvu, fvu

    def auxiliary(self, weights: Weights, x_BD: Tensor, pre_BL: Tensor, residual_BD: Tensor, dead: Tensor) -> Tensor:
        """AuxK (appendix A.2): the share of the residual that the largest dead latents of each token miss.

        They are d/2 as in the paper, but at most AUX_K.
        """
        with torch.no_grad():
            numbers = dead.nonzero()[:, 0]
            k = min(max(x_BD.shape[1] // 2, 1), len(numbers), AUX_K)
            chosen = numbers[pre_BL[:, numbers].topk(k, dim=1, sorted=False).indices].sort(dim=1).values
            active = Active.of_rows(chosen, self.width)
            centred = x_BD - weights["b_dec"]
            values = products(active, centred, weights["W_enc"]) + weights["b_enc"][active.latents]
        latents = EncodeActive.apply(values, centred, *(weights[n] for n in ("W_enc", "b_enc", "b_dec")), active).relu()
        missed = (residual_BD - DecodeActive.apply(latents, weights["W_dec"], active)).square().sum(dim=1).mean()
        return missed / residual_BD.square().sum(dim=1).mean().clamp_min(1e-12)


class BatchTopK(TopK):
    """The k x B largest latents of a batch; afterwards one threshold for all, so that no token depends on a batch.

    Bussmann, Leask & Nanda 2024, "BatchTopK Sparse Autoencoders", https://arxiv.org/abs/2412.06410
    """

    saved_as = "jumprelu"

    def select(self, pre_BL: Tensor, exact: Exact, memory: Memory) -> tuple[Active, Tensor]:
        batch = len(pre_BL)
        wanted = self.k * batch
        half = pre_BL.dtype in HALF
        flat = pre_BL.reshape(-1)
        # the smallest of the last batch tells about where this one's will be
        floor = memory.dials.setdefault("floor", torch.tensor(float("-inf")))
        places = (flat > 0.9 * floor.clamp_min(0).to(flat)).nonzero()[:, 0]
        if not floor.isfinite() or (len(places) < wanted and floor > 0):
            places = (flat > 0).nonzero()[:, 0]
        values = flat[places]
        if len(places) > wanted:
            smallest = values.topk(wanted, sorted=False).values.min()
            keep = values >= (0.97 * smallest if half else smallest)
            places, values = places[keep], values[keep]
        if half:
            values = exact(Active.of_places(places, batch, self.width))
        if len(places) > wanted:
            best = values.topk(wanted, sorted=False).indices.sort().values
            places, values = places[best], values[best]
        memory.dials["floor"] = values.min().float().cpu() if len(values) else torch.zeros(())
        return Active.of_places(places, batch, self.width), values

    def thresholds(self, weights: Weights, batches: Any, tokens: int) -> Tensor:
        """The exact global quantile at which the mean L0 over all train tokens is k."""
        wanted = self.k * tokens
        largest = weights["b_enc"].new_empty(0)
        for x_BD in batches:
            pre_BL = (x_BD - weights["b_dec"]) @ weights["W_enc"].T + weights["b_enc"]
            floor = largest.min() if len(largest) == wanted else pre_BL.new_zeros(())
            largest = torch.cat([largest, pre_BL[pre_BL > floor]])
            largest = largest.topk(min(wanted, len(largest)), sorted=False).values
        zero = weights["b_enc"].new_zeros(())
        return (torch.nextafter(largest.min(), zero) if len(largest) else zero).expand(self.width).contiguous()


class Matryoshka(BatchTopK):
    """BatchTopK whose first L/16, L/8, L/4, L/2 latents must each reconstruct alone, so that they stay general.

    Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse Autoencoders",
    https://arxiv.org/abs/2503.17547
    """

    def reconstruct(self, weights: Weights, x_BD: Tensor, active: Active, latents: Tensor) -> tuple[Tensor, Tensor]:
        bounds = [self.width // part for part in (16, 8, 4, 2, 1) if self.width // part]
        reconstruction = weights["b_dec"].expand_as(x_BD)
        losses = []
        for low, high in zip([0, *bounds], bounds, strict=False):
            here = (active.latents >= low) & (active.latents < high)
            places = active.tokens[here] * self.width + active.latents[here]
            level = Active.of_places(places, len(x_BD), self.width)
            reconstruction = reconstruction + DecodeActive.apply(latents[here], weights["W_dec"], level)
            losses.append(self.fvu(x_BD, reconstruction))
        return losses[-1], torch.stack(losses).mean()


class Penalised(Architecture):
    """Sparsity by a penalty, whose coefficient is turned during training until k latents are active on average.

    What is active is not few at first, so these use dense products.
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
        """Latents (B, L), the penalty on them a token, and what else is lost. pre_BL: without a bias."""

    def l1(self, latents: Tensor) -> Tensor:
        """The mean L1 norm of a token's latents, in units of the activations' norm."""
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
    """A gate says which latents are active, a magnitude how much, so that the penalty shrinks no magnitude.

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
    """A learned threshold for each latent and a penalty on L0 itself, both by straight-through estimates.

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
    """1 where x > threshold; the gradient to the threshold is that of a rectangle of the bandwidth around it."""

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


FIRST_COEFFICIENT = 1e-3
DESCENT = 0.5
DIAL_TURNS = 30.0  # how often the coefficient could grow e-fold in a whole training
THRESHOLD_SPEED = 10.0  # how much faster log thresholds move than Adam's learning rate lets weights move
BANDWIDTH = 0.2  # in units of the size that each of k equal latents would have
GROUP = 16  # latents whose maximum is looked at first
AUX_K = 256  # beyond this AuxK costs more than the rest of the step

ARCHITECTURES: dict[str, type[Architecture]] = {
    "relu": Relu,
    "gated": Gated,
    "jump_relu": JumpRelu,
    "topk": TopK,
    "batch_topk": BatchTopK,
    "matryoshka": Matryoshka,
}


def top_latents(pre_BL: Tensor, k: int) -> Tensor:
    """The k largest of each row, int64 (B, k), in no order; of numbers in half precision only positive ones count.

    They are in the k groups with the largest maxima, so most of a wide row need not be looked at one by one.
    """
    batch, width = pre_BL.shape
    # as integers, the bits of positive numbers are in the same order, and are compared faster
    values = pre_BL.view(torch.int16) if pre_BL.dtype in HALF and pre_BL.device.type == "cpu" else pre_BL
    if width % GROUP or width // GROUP < 2 * k:
        return _largest(values, k)
    grouped = values.view(batch, GROUP, width // GROUP)
    best = _largest(grouped.amax(dim=1), k)
    members = grouped.gather(2, best[:, None, :].expand(-1, GROUP, -1)).reshape(batch, GROUP * k)
    chosen = _largest(members, k)
    return chosen // k * (width // GROUP) + best.gather(1, chosen % k)


def _largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row (B, n), int64 (B, k)."""
    n = values.shape[1]
    if values.dtype != torch.int16 or n > 2**16:
        return values.topk(k, dim=1, sorted=False).indices
    # value and place in one integer: numpy's partition, vectorised for these, is several times as fast as topk
    packed = values.int().mul_(2**16).add_(torch.arange(n, dtype=torch.int32))
    best = torch.from_numpy(np.partition(packed.numpy(), n - k, axis=1)[:, n - k :])
    return best.bitwise_and_(2**16 - 1).long()


def encoder_product(x_BD: Tensor, w_LD: Tensor, b_enc: Tensor, norms: Tensor) -> Tensor:
    """(x w^T + b) * norms, (B, L): in bfloat16 where the processor has matrix units for it, else in x's own type."""
    if x_BD.dtype == torch.float32 and has_fast_bfloat16(x_BD.device):
        weights = w_LD.bfloat16().mul_(norms.bfloat16()[:, None])
        return torch.nn.functional.linear(x_BD.bfloat16(), weights, (b_enc * norms).bfloat16())
    return torch.nn.functional.linear(x_BD, w_LD, b_enc).mul_(norms)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products take much less time than float32 ones: AMX on CPUs, tensor cores on GPUs."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))
