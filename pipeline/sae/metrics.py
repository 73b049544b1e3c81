"""How well a sparse autoencoder reconstructs activations, how sparsely, and how its latents are used."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.sae.model import Sae

CHUNK = 2048  # tokens encoded at once
DENSE = 0.1  # a latent that is active on a larger share of the tokens is called dense
QUANTILES = (0.05, 0.5, 0.95)


@torch.no_grad()
def reconstruction_metrics(sae: Sae, acts_ND: Tensor) -> dict[str, Any]:
    """Metrics of `sae` on activations (N, width).

    fvu: fraction of variance unexplained, sum |x - x'|^2 / sum |x - mean|^2; explained_variance: 1 - fvu;
    cosine: mean cosine similarity of x and x'; l0: mean number of active latents a token, and its quantiles;
    dead_fraction, dense_fraction: share of latents that are active on none of the N tokens, and on more than a tenth;
    encoder_decoder_cosine: mean over latents of the cosine similarity of encoder and decoder direction.
    """
    mean = torch.zeros(sae.width, dtype=torch.float64)
    for rows in acts_ND.split(CHUNK):
        mean += rows.double().sum(dim=0) / len(acts_ND)
    error = variance = cosine = 0.0
    fired = torch.zeros(sae.latents, dtype=torch.int64)
    active = []
    for rows in acts_ND.split(CHUNK):
        x = rows.float()
        latents = sae.encode(x)
        reconstruction = sae.decode(latents)
        error += (x - reconstruction).double().square().sum().item()
        variance += (x.double() - mean).square().sum().item()
        cosine += cosine_similarity(x, reconstruction, dim=1).double().sum().item()
        firing = latents > 0
        active.append(firing.sum(dim=1))
        fired += firing.sum(dim=0)
    fvu = error / variance if variance else float("nan")
    l0 = torch.cat(active).double()
    return {
        "tokens": len(acts_ND),
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "cosine": cosine / len(acts_ND),
        "l0": l0.mean().item(),
        "l0_quantiles": {f"{q:g}": torch.quantile(l0, q).item() for q in QUANTILES},
        "dead_fraction": (fired == 0).double().mean().item(),
        "dense_fraction": (fired > DENSE * len(acts_ND)).double().mean().item(),
        "encoder_decoder_cosine": cosine_similarity(sae.tensors["W_enc"].T, sae.tensors["W_dec"]).mean().item(),
    }
