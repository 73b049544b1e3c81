"""A sparse autoencoder that has learned nothing: the control for what training adds."""

import numpy as np
import torch
from torch import Tensor

from pipeline.sae.model import Sae

BLOCK = 512  # latents whose thresholds are found at once


@torch.no_grad()
def untrained_like(sae: Sae, acts_ND: Tensor, seed: int) -> Sae:
    """Make an SAE with random directions and the shape of `sae`, each of whose latents fires as often as one of `sae`.

    That is measured on activations (N, d), on which L0 then is the same, too.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(sae.latents, sae.width, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    acts_ND = acts_ND.float()
    centre = acts_ND.mean(dim=0)
    counts = torch.zeros(sae.latents, dtype=torch.int64)
    for rows in acts_ND.split(2048):
        counts += (sae.encode(rows) > 0).sum(dim=0)
    blocks = zip(decoder.split(BLOCK), counts.split(BLOCK), strict=True)
    limit = torch.cat([_exceeded_by((acts_ND - centre) @ directions.T, each) for directions, each in blocks])
    tensors = {"W_enc": decoder.T.contiguous(), "W_dec": decoder, "b_dec": centre}
    # latents are positive: a limit below 0, of one that fires on most tokens, is a bias
    return Sae("jumprelu", tensors | {"threshold": limit.relu(), "b_enc": (-limit).relu()})


def _exceeded_by(pre_NL: Tensor, counts_L: Tensor) -> Tensor:
    """Return for each column the value that so many of its values exceed, (L)."""
    ascending = np.sort(pre_NL.T.contiguous().numpy(), axis=1)
    places = len(pre_NL) - 1 - counts_L.numpy()
    limit = ascending[np.arange(len(places)), np.maximum(places, 0)]
    return torch.from_numpy(np.where(places < 0, np.nextafter(limit, np.float32(-np.inf)), limit))
