"""Which latents a classifier rests on, and others that are active just as often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore
from pipeline.probes.attribution import Linear
from pipeline.sae.model import Sae

TOP = 16
DRAWS = 5  # of random latents
_NEAREST = 2 * DRAWS  # latents of about the same density, one of which is drawn


@dataclass(frozen=True)
class Sets:
    """The latents to compare. top: (k), first the one that matters most; random: draws of (k), the first matched to the
    first of top, and so on; density: of all latents, the share of tokens on which each is active."""

    top: np.ndarray
    random: list[np.ndarray]
    density: np.ndarray


def choose(
    store: ActivationStore, sae: Sae, linear: Linear, prompt_ids: Sequence[str], labels: np.ndarray, seed: int
) -> Sets:
    """The latents to which a classifier owes most of the gap between its mean logits on the two classes.

    A latent's part of the gap is its weight times the difference of its pooled mean on targets and on others; the
    parts sum to the gap. The size of a contribution would put those first that are active everywhere: they move
    every logit by the same, and tell nothing.

    Args:
        prompt_ids: train prompts; labels: which of them are targets, bool (n).
    """
    active, tokens = torch.zeros(sae.latents, dtype=torch.int64), 0

    def latents(x_ND: Tensor) -> dict[str, Tensor]:
        nonlocal tokens
        encoded = sae.encode(x_ND)
        active.add_((encoded > 0).sum(dim=0))
        tokens += len(encoded)
        return {"latents": encoded}

    features = pooled(store, prompt_ids, [linear.pooling], latents, ["latents"])["latents"][linear.pooling]
    gaps = linear.weight * (features[labels].mean(axis=0) - features[~labels].mean(axis=0))
    top = np.argsort(-gaps, kind="stable")[: min(TOP, sae.latents // 2)]
    density = active.numpy() / tokens
    return Sets(top, [matched(top, density, 1 / tokens, [seed, draw]) for draw in range(DRAWS)], density)


def matched(top: np.ndarray, density: np.ndarray, smallest: float, seed: Sequence[int]) -> np.ndarray:
    """For each of the latents of `top` (k) a random one outside of it among those nearest to it in log density.

    Args:
        density: (latents), at least 2 k; smallest: a density that is told from 0.
    """
    rng = np.random.default_rng(seed)
    free = np.ones(len(density), dtype=bool)
    free[top] = False
    logs = np.log(density + smallest)
    found = np.empty_like(top)
    for place in rng.permutation(len(top)):
        candidates = np.flatnonzero(free)
        nearest = candidates[np.argsort(np.abs(logs[candidates] - logs[top[place]]), kind="stable")[:_NEAREST]]
        found[place] = rng.choice(nearest)
        free[found[place]] = False
    return found
