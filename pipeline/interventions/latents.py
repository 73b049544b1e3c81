"""Choose the latents that a classifier depends on most, and random ones that are active as often and as strongly."""

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
DRAWS = 39  # of random latents: beyond all of them in a direction is a two-sided p-value of 2 / 40
_NEAREST = 20  # latents of about the same density and energy, one of which is drawn


@dataclass(frozen=True)
class Sets:
    """The latents to compare."""

    top: np.ndarray
    """int (k): the latents that matter most, first the one that matters most of all."""
    random: list[np.ndarray]
    """Random draws, each int (k): the first latent matches the first of `top` in density and energy, and so on."""
    density: np.ndarray
    """float64 (latents): the share of tokens on which each latent is active."""


def choose(
    store: ActivationStore, sae: Sae, linear: Linear, prompt_ids: Sequence[str], labels: np.ndarray, seed: int
) -> Sets:
    """Choose the latents that make most of the gap between a classifier's mean logits on the two classes.

    A latent's part of the gap is its weight times the difference between its mean pooled values on targets and on
    others; the parts sum to the gap. Ranking by the size of contributions would put latents first that are active
    everywhere: these move every logit alike, and so do not separate the classes. A latent's energy is the mean square
    of what it adds to an activation.

    Args:
        prompt_ids: n train prompts.
        labels: bool (n), which of them are targets.
        seed: of the random draws.
    """
    active, energy, tokens = *torch.zeros(2, sae.latents, dtype=torch.float64), 0

    def latents(x_ND: Tensor) -> dict[str, Tensor]:
        nonlocal tokens
        encoded = sae.encode(x_ND)
        active.add_((encoded > 0).sum(dim=0))
        energy.add_(encoded.double().square().sum(dim=0))
        tokens += len(encoded)
        return {"latents": encoded}

    features = pooled(store, prompt_ids, [linear.pooling], latents, ["latents"])["latents"][linear.pooling]
    gaps = linear.weight * (features[labels].mean(axis=0) - features[~labels].mean(axis=0))
    top = np.argsort(-gaps, kind="stable")[: min(TOP, sae.latents // 2)]
    energy *= sae.tensors["W_dec"].double().square().sum(dim=1)
    likeness = np.stack([_log(active.numpy()), _log(energy.numpy())], axis=1)
    random = [matched(top, likeness, [seed, draw]) for draw in range(DRAWS)]
    return Sets(top, random, active.numpy() / tokens)


def _log(values: np.ndarray) -> np.ndarray:
    """Return the logarithm of values that are not negative, with the smallest positive one added to all."""
    return np.asarray(np.log(values + min(values[values > 0], default=1.0)))


def matched(top: np.ndarray, likeness: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """Draw for each latent of `top` (k) a random other latent that is much like it.

    It is drawn among the latents outside of `top` that are nearest, by the sum of differences.

    Args:
        likeness: (latents, properties), of at least 2 k latents, such as the logarithms of density and energy.
    """
    rng = np.random.default_rng(seed)
    free = np.ones(len(likeness), dtype=bool)
    free[top] = False
    found = np.empty_like(top)
    for place in rng.permutation(len(top)):
        candidates = np.flatnonzero(free)
        distances = np.abs(likeness[candidates] - likeness[top[place]]).sum(axis=1)
        found[place] = rng.choice(candidates[np.argsort(distances, kind="stable")[:_NEAREST]])
        free[found[place]] = False
    return found


def removed_norms(
    store: ActivationStore, sae: Sae, sets: Sequence[np.ndarray], prompt_ids: Sequence[str]
) -> np.ndarray:
    """Return the norm of what sets of latents add, as a share of the activation's norm, (prompts, sets).

    It is the mean over the tokens of a prompt that count.
    """

    def shares(x_ND: Tensor) -> dict[str, Tensor]:
        encoded, norms = sae.encode(x_ND), x_ND.norm(dim=1)
        parts = [encoded[:, latents] @ sae.tensors["W_dec"][latents] for latents in map(torch.from_numpy, sets)]
        return {"shares": torch.stack([part.norm(dim=1) / norms for part in parts], dim=1)}

    return np.asarray(pooled(store, prompt_ids, ["mean"], shares)["shares"]["mean"], dtype=np.float64)


def equalising(norms: np.ndarray, sides: Sequence[np.ndarray]) -> np.ndarray:
    """Return factors by which each set removes as much as the first one does, on average over each side: like `norms`.

    Args:
        norms: (prompts, sets), see `removed_norms`.
        sides: bool (prompts) each. The factor of a set is the same for all prompts of a side; where it removes nothing,
            it is 1.
    """
    factors = np.ones_like(norms)
    for side in sides:
        means = norms[side].mean(axis=0) if side.any() else np.zeros(norms.shape[1])
        factors[side] = np.divide(means[0], means, out=np.ones_like(means), where=means > 0)
    return factors
