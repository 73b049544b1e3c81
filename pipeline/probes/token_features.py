"""Reduce token activations to few dimensions, for probes that look at single tokens."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.activations.store import ActivationStore
from pipeline.probes.arms.attention import COMPONENTS, Tokens

SMALL = 1e-6


def reduced_tokens(store: ActivationStore, prompt_ids: list[str]) -> Callable[[np.ndarray], Tokens]:
    """Return a function that makes, from rows of `prompt_ids`, the Tokens of all these prompts.

    It projects the tokens that count on the principal components of the given rows' tokens, scaled to variance 1.
    """
    place = {prompt_id: number for number, prompt_id in enumerate(prompt_ids)}
    number_of = np.array([place.get(prompt_id, -1) for prompt_id in store.prompt_ids])
    prompt = np.where(store.counted, np.repeat(number_of, np.diff(store.offsets)), -1)

    def tokens(rows: np.ndarray) -> Tokens:
        wanted = np.isin(prompt, rows)
        total, square, count = torch.zeros(store.width).double(), torch.zeros(store.width, store.width), 0
        centre = None
        for first, states in store.shard_rows():
            chosen = states[torch.from_numpy(wanted[first : first + len(states)])].float()
            if not len(chosen):
                continue
            centre = chosen.mean(dim=0) if centre is None else centre
            chosen = chosen - centre
            total += chosen.sum(dim=0)
            square += chosen.T @ chosen
            count += len(chosen)
        assert centre is not None
        shift = (total / count).float()
        variances, directions = torch.linalg.eigh(square.double() / count - torch.outer(shift, shift).double())
        kept = variances.argsort(descending=True)[:COMPONENTS]
        kept = kept[variances[kept] > SMALL * variances[-1]]
        projection = (directions[:, kept] / variances[kept].sqrt()).float()
        parts: list[Tensor] = []
        for first, states in store.shard_rows():
            mask = torch.from_numpy(prompt[first : first + len(states)] >= 0)
            parts.append((states[mask].float() - centre - shift) @ projection)
        of = torch.from_numpy(prompt[prompt >= 0])
        return Tokens(torch.cat(parts), of, len(prompt_ids), centre + shift, projection)

    return tokens
