"""How well a sparse autoencoder reconstructs activations, and how sparsely."""

import torch
from torch import Tensor

from pipeline.sae.model import Sae

CHUNK = 4096  # tokens encoded at once


@torch.no_grad()
def reconstruction_metrics(sae: Sae, acts_ND: Tensor) -> dict[str, float]:
    """Metrics of `sae` on activations (N, width).

    fvu: fraction of variance unexplained, sum |x - x'|^2 / sum |x - mean|^2; l0: mean number of active
    latents a token; dead_fraction: share of latents that are active on none of the N tokens.
    """
    mean = torch.zeros(sae.width, dtype=torch.float64)
    for rows in acts_ND.split(CHUNK):
        mean += rows.double().sum(dim=0) / len(acts_ND)
    error = variance = active = 0.0
    fired = torch.zeros(sae.latents, dtype=torch.bool)
    for rows in acts_ND.split(CHUNK):
        x = rows.float()
        latents = sae.encode(x)
        error += (x - sae.decode(latents)).double().square().sum().item()
        variance += (x.double() - mean).square().sum().item()
        active += (latents > 0).sum().item()
        fired |= (latents > 0).any(dim=0)
    return {
        "tokens": len(acts_ND),
        "fvu": error / variance if variance else float("nan"),
        "l0": active / len(acts_ND),
        "dead_fraction": 1 - fired.float().mean().item(),
    }
