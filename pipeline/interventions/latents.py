"""Choose the latents that a classifier depends on most, and random ones that are active just as often."""

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
    """The latents to compare."""

    top: np.ndarray
    """int (k): the latents that matter most, first the one that matters most of all."""
    random: list[np.ndarray]
    """Random draws, each int (k): the first latent matches the first of `top` in density, and so on."""
    density: np.ndarray
    """float64 (latents): the share of tokens on which each latent is active."""


def choose(
    store: ActivationStore, sae: Sae, linear: Linear, prompt_ids: Sequence[str], labels: np.ndarray, seed: int
) -> Sets:
    """Choose the latents that make most of the gap between a classifier's mean logits on the two classes.

    A latent's part of the gap is its weight times the difference between its mean pooled values on targets and on
    others; the parts sum to the gap. Ranking by the size of contributions would put latents first that are active
    everywhere: these move every logit alike, and so do not separate the classes.

    Args:
        prompt_ids: n train prompts.
        labels: bool (n), which of them are targets.
        seed: of the random draws.
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
    """Draw for each latent of `top` (k) a random other latent that is active about as often.

    It is drawn among the latents outside of `top` that are nearest in log density.

    Args:
        density: (latents), at least 2 k of them.
        smallest: added to all densities, so that the log of 0 is defined.
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
