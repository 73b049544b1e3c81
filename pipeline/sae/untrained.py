"""A sparse autoencoder that has learned nothing: the control for what training adds."""

import torch
from torch import Tensor

from pipeline.sae.model import Sae


@torch.no_grad()
def untrained_like(sae: Sae, acts_ND: Tensor, seed: int) -> Sae:
    """Make an SAE with random directions and the shape and mean L0 of `sae`, measured on activations (N, d).

    One threshold for all latents sets the L0.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(sae.latents, sae.width, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    acts_ND = acts_ND.float()
    centre = acts_ND.mean(dim=0)
    active = sum(int((sae.encode(rows) > 0).sum()) for rows in acts_ND.split(2048))
    largest = torch.empty(0)
    for rows in acts_ND.split(2048):
        pre = ((rows - centre) @ decoder.T).flatten()
        largest = torch.cat([largest, pre[pre > (largest.min() if 0 < len(largest) == active else 0)]])
        largest = largest.topk(min(active, len(largest)), sorted=False).values
    threshold = torch.full((sae.latents,), float(largest.min()) if len(largest) else 0.0)
    tensors = {"W_enc": decoder.T.contiguous(), "W_dec": decoder, "b_dec": centre, "threshold": threshold}
    return Sae("jumprelu", tensors | {"b_enc": torch.zeros(sae.latents)})
