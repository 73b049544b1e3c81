"""Products with few active latents per token: the decoder, and gradients of decoder and encoder, without dense latents.

A batch of B tokens has nnz active (token, latent) pairs among B x L. Beyond the encoder product everything costs
nnz x d instead of B x L x d. The operations are PyTorch's: `embedding_bag` for sums of weight rows, and
`sampled_addmm` for the entries of a product at chosen places.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


@dataclass(frozen=True)
class Active:
    """Which latents are active on which of B tokens: nnz pairs, sorted by token."""

    latents: Tensor
    """int64 (nnz), the latent of each pair."""
    offsets: Tensor
    """int64 (B + 1); token b has the pairs offsets[b]:offsets[b + 1]."""
    width: int
    """L, the number of latents."""

    @classmethod
    def of_rows(cls, latents_BK: Tensor, width: int) -> "Active":
        """Make it from the latents of each token."""
        batch, k = latents_BK.shape
        offsets = torch.arange(0, batch * k + 1, k, device=latents_BK.device)
        return cls(latents_BK.reshape(-1), offsets, width)

    @classmethod
    def of_places(cls, places: Tensor, batch: int, width: int) -> "Active":
        """Make it from places (nnz) in the flattened (B x L), ascending."""
        counts = torch.bincount(places // width, minlength=batch)
        return cls(places % width, torch.nn.functional.pad(counts.cumsum(0), (1, 0)), width)

    @cached_property
    def tokens(self) -> Tensor:
        """Return the token of each pair, int64 (nnz)."""
        counts = self.offsets.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor]:
        """Return the order that sorts the pairs by latent, and where each latent's pairs start, int64 (L)."""
        order = self.latents.int().argsort(stable=True)  # of int32: twice as fast
        counts = torch.bincount(self.latents, minlength=self.width)
        return order, counts.cumsum(0) - counts

    def fired(self) -> Tensor:
        """Return whether each latent is active on some token, bool (L)."""
        fired = torch.zeros(self.width, dtype=torch.bool, device=self.latents.device)
        fired[self.latents] = True
        return fired


def products(active: Active, x_BD: Tensor, weights_LD: Tensor) -> Tensor:
    """Return x_b . w_l for each active pair (b, l), (nnz)."""
    pattern = torch.sparse_csr_tensor(
        active.offsets,
        active.latents,
        x_BD.new_zeros(len(active.latents)),
        (len(x_BD), active.width),
        check_invariants=False,
    )
    return torch.sparse.sampled_addmm(pattern, x_BD, weights_LD.T, beta=0.0).values()


def sum_over_latents(active: Active, values: Tensor, weights_LD: Tensor) -> Tensor:
    """Return for each token the sum over its active latents l of value * w_l, (B, d)."""
    return embedding_bag(active.latents, weights_LD, active.offsets[:-1], mode="sum", per_sample_weights=values)


def sum_over_tokens(active: Active, values: Tensor, x_BD: Tensor) -> Tensor:
    """Return for each latent the sum over tokens b on which it is active of value * x_b, (L, d)."""
    order, starts = active.by_latent
    return embedding_bag(active.tokens[order], x_BD, starts, mode="sum", per_sample_weights=values[order])


class EncodeActive(torch.autograd.Function):
    """Computes (x_b - b_dec) . w_l + b_l at the active pairs, (nnz), with gradients to w_LD, b_enc and b_dec.

    `centred_BD` is x - b_dec. `values` are the results, which the selection of the pairs has computed already.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, centred_BD: Tensor, w_LD: Tensor, b_enc: Tensor, b_dec: Tensor, active: Active
    ) -> Tensor:
        ctx.save_for_backward(centred_BD, w_LD)
        ctx.active = active
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        centred_BD, w_LD = ctx.saved_tensors
        active: Active = ctx.active
        to_bias = _sums(active, grad)
        to_weights = sum_over_tokens(active, grad, centred_BD)
        return None, None, to_weights, to_bias, -(to_bias @ w_LD), None


class DecodeActive(torch.autograd.Function):
    """Sums value * w_l over each token's active latents l, (B, d), with gradients to the values and w_LD."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, w_LD: Tensor, active: Active) -> Tensor:
        ctx.save_for_backward(values, w_LD)
        ctx.active = active
        return sum_over_latents(active, values, w_LD)

    @staticmethod
    def backward(ctx: Any, grad_BD: Tensor) -> Any:
        values, w_LD = ctx.saved_tensors
        grad_BD = grad_BD.contiguous()
        return products(ctx.active, grad_BD, w_LD), sum_over_tokens(ctx.active, values, grad_BD), None


def _sums(active: Active, values: Tensor) -> Tensor:
    """Return the sum of each latent's values, (L), added in an order that is always the same."""
    if not values.is_cuda:
        return torch.bincount(active.latents, weights=values, minlength=active.width).to(values.dtype)
    order, starts = active.by_latent
    return embedding_bag(order, values[:, None], starts, mode="sum")[:, 0]
