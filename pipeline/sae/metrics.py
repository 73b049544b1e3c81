"""Measure how well a sparse autoencoder reconstructs activations, how sparsely, and how its latents are used."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.core.errors import UserError
from pipeline.sae.check import check_tokens
from pipeline.sae.model import Sae

CHUNK = 2048  # tokens encoded at once
DENSE = 0.1  # a latent that is active on a larger share of the tokens is called dense
QUANTILES = (0.05, 0.5, 0.95)
DENSITY_BINS = 4  # a factor of ten


@dataclass(frozen=True)
class Measurement:
    """What an SAE does on N tokens."""

    metrics: dict[str, Any]
    """Figures by name:

    fvu: fraction of variance unexplained, sum |x - x'|^2 / sum |x - mean|^2; NaN where all activations are the same.
    explained_variance: 1 - fvu.
    cosine: mean cosine similarity of x and its reconstruction x'.
    l0: mean number of active latents per token, and its quantiles.
    dead_fraction: share of latents that are active on none of the N tokens.
    dense_fraction: share of latents that are active on more than a tenth of them.
    encoder_decoder_cosine: mean over latents of the cosine similarity of encoder and decoder direction.
    """
    l0: Tensor
    """int64 (N): active latents of each token."""
    density: Tensor
    """float64 (L): the share of the tokens on which each latent is active."""
    encoder_decoder_cosine: Tensor
    """(L): cosine similarity of each latent's encoder and decoder direction."""

    def density_histogram(self) -> list[tuple[float | str, int, float]]:
        """Return rows (lower end of the bin, latents, mean encoder-decoder cosine).

        The first bin holds latents that are never active. The others are quarters of decades, from one token's density
        to 1.
        """
        tokens = len(self.l0)
        lowest = int(torch.floor(torch.tensor(1 / tokens).log10() * DENSITY_BINS))
        # the top of a bin belongs to the next, but density 1 to the last
        bins = (self.density.clamp(1 / (2 * tokens), 1 - 1e-9).log10() * DENSITY_BINS).floor().int()
        rows: list[tuple[float | str, int, float]] = []
        for number in [None, *range(lowest, 0)]:
            here = self.density == 0 if number is None else (self.density > 0) & (bins == number)
            mean = self.encoder_decoder_cosine[here].mean().item() if here.any() else 0.0
            low = "dead" if number is None else float(f"{10 ** (number / DENSITY_BINS):.2g}")
            rows.append((low, int(here.sum()), round(mean, 4)))
        return rows

    def l0_quantiles(self) -> list[tuple[int, float]]:
        """Return rows (percent of the tokens, most active latents that they have), for every fifth percent."""
        return [(percent, torch.quantile(self.l0.double(), percent / 100).item()) for percent in range(0, 101, 5)]


@torch.no_grad()
def measure(sae: Sae, acts_ND: Tensor) -> Measurement:
    """Measure `sae` on activations (N, width), N >= 1, which are moved to the SAE's device in parts.

    Raises: UserError when there are none, or when they or their reconstruction are not finite.
    """
    check_tokens(acts_ND, "acts", sae.width)
    if not len(acts_ND):
        raise UserError("there are no activations to measure an SAE on: give some")
    mean = torch.zeros(sae.width, dtype=torch.float64, device=sae.device)
    for rows in acts_ND.split(CHUNK):
        mean += rows.to(sae.device).double().sum(dim=0) / len(acts_ND)
    error = variance = cosine = 0.0
    fired = torch.zeros(sae.latents, dtype=torch.int64, device=sae.device)
    active = []
    for rows in acts_ND.split(CHUNK):
        x = rows.to(sae.device).float()
        latents = sae.encode(x)
        reconstruction = sae.decode(latents)
        error += (x - reconstruction).double().square().sum().item()
        variance += (x.double() - mean).square().sum().item()
        cosine += cosine_similarity(x, reconstruction, dim=1).double().sum().item()
        firing = latents > 0
        active.append(firing.sum(dim=1))
        fired += firing.sum(dim=0)
    if not math.isfinite(error):
        raise UserError(f"what {sae} makes of the activations is not finite: train it again, or get another copy")
    fvu = error / variance if variance else float("nan")
    l0, fired = torch.cat(active).cpu(), fired.cpu()
    encoder_decoder = cosine_similarity(sae.tensors["W_enc"].T, sae.tensors["W_dec"]).cpu()
    metrics = {
        "tokens": len(acts_ND),
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "cosine": cosine / len(acts_ND),
        "l0": l0.double().mean().item(),
        "l0_quantiles": {f"{q:g}": torch.quantile(l0.double(), q).item() for q in QUANTILES},
        "dead_fraction": (fired == 0).double().mean().item(),
        "dense_fraction": (fired > DENSE * len(acts_ND)).double().mean().item(),
        "encoder_decoder_cosine": encoder_decoder.mean().item(),
    }
    return Measurement(metrics, l0, fired.double() / len(acts_ND), encoder_decoder)
