"""Architectures with a fixed number of active latents: of each token, or on average over a batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.sae.architectures.base import Architecture, Memory, Step, Weights
from pipeline.sae.architectures.selection import HALF, encoder_product, top_latents
from pipeline.sae.sparse import Active, DecodeActive, EncodeActive, products

Exact = Callable[[Active], Tensor]
AUX_K = 256  # beyond this AuxK costs more than the rest of the step


class TopK(Architecture):
    """The k largest latents of each token are active; dead latents learn the residual (AuxK).

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
        """Return the active pairs of a batch and their pre-activations (nnz), in units of what a latent adds.

        Pre-activations in half precision only propose candidates, which `exact` then evaluates.
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
        """Return the fraction of variance unexplained, and the loss."""
        fvu = self.fvu(x_BD, DecodeActive.apply(latents, weights["W_dec"], active) + weights["b_dec"])
        return fvu, fvu

    def auxiliary(self, weights: Weights, x_BD: Tensor, pre_BL: Tensor, residual_BD: Tensor, dead: Tensor) -> Tensor:
        """Return the AuxK loss: the share of the residual that the largest dead latents of each token fail to explain.

        There are d/2 of these latents as in the paper (appendix A.2), but at most AUX_K.
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
    """The k x B largest latents of a batch are active. Once trained, one threshold replaces the choice by batch.

    So no token's latents depend on a batch.
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
        """Return the exact global quantile at which the mean L0 over all train tokens is k."""
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
