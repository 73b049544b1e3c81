"""What makes an architecture: which latents stay active, in training and afterwards.

To add one, write a subclass of `Architecture` and register it in ARCHITECTURES.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor


class Architecture(ABC):
    """Turns pre-activations into sparse latents. B: tokens of a batch, L: latents."""

    def __init__(self, k: int) -> None:
        self.k = k

    @abstractmethod
    def select(self, pre_BL: Tensor) -> Tensor:
        """The latents (B, L) of a training batch: `pre_BL` where active, 0 elsewhere."""

    def threshold(self, batches: Iterable[Tensor], tokens: int) -> Tensor | None:
        """The activation above which a latent is active at inference, if any.

        `batches` hold the pre-activations (B, L) of all `tokens` train tokens.
        """
        return None


class TopK(Architecture):
    """The k largest latents of each token (Gao et al. 2024, "Scaling and evaluating sparse autoencoders")."""

    def select(self, pre_BL: Tensor) -> Tensor:
        return keep_top_k(pre_BL, self.k)


class BatchTopK(Architecture):
    """The k x B largest latents of a batch of B tokens (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders").

    At inference a token must not depend on its batch, so one threshold for all takes the batch's place.
    """

    def select(self, pre_BL: Tensor) -> Tensor:
        flat = pre_BL.relu().flatten()
        values, indices = flat.topk(min(self.k * len(pre_BL), len(flat)), sorted=False)
        return torch.zeros_like(flat).scatter(0, indices, values).view_as(pre_BL)

    def threshold(self, batches: Iterable[Tensor], tokens: int) -> Tensor:
        """The exact global quantile at which the mean L0 over all given tokens is k."""
        largest = torch.empty(0)
        for pre_BL in batches:
            floor = largest.min() if len(largest) == self.k * tokens else torch.zeros(())
            largest = torch.cat([largest, pre_BL[pre_BL > floor]])
            largest = largest.topk(min(self.k * tokens, len(largest)), sorted=False).values
        return torch.nextafter(largest.min(), torch.zeros(())) if len(largest) else torch.zeros(())


ARCHITECTURES: dict[str, type[Architecture]] = {"topk": TopK, "batch_topk": BatchTopK}


def keep_top_k(pre_BL: Tensor, k: int) -> Tensor:
    """Zero all but the k largest positive entries of each row."""
    values, indices = pre_BL.topk(k, dim=1, sorted=False)
    return torch.zeros_like(pre_BL).scatter(1, indices, values.relu())
