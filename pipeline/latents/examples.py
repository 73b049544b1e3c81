"""Prompts that show what a latent does: those where it is strongest, and some from its whole range."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.progress import progress
from pipeline.latents.firing import Firing


@dataclass(frozen=True)
class Example:
    """A latent in a prompt.

    quantile: of the latent's largest activations in the prompts where it is active, that which this prompt stands for;
    None: it is one of the top. activation: the largest in the prompt; positions, values: of all tokens of the prompt
    on which the latent is active, counted from its first kept one.
    """

    latent: int
    quantile: float | None
    prompt: int
    activation: float
    positions: np.ndarray
    values: np.ndarray


def examples(firing: Firing, groups: np.ndarray, counts: np.ndarray) -> Iterator[Example]:
    """For each latent the prompts where it is strongest, strongest first, then those of even quantiles, high to low.

    Args:
        groups: near-duplicate groups (N); no two of a latent's top prompts are of the same.
        counts: int (L), how many of either kind each latent is to have. Where fewer prompts or groups activate it, it
            has fewer; no prompt stands for two quantiles. With a count of 5 these are 0.9, 0.7, 0.5, 0.3, 0.1.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    with progress(firing.latents, "examples", "latent") as bar:
        for latent, count in enumerate(counts):
            prompts, peaks = firing.prompts_of(latent)
            order = np.argsort(-peaks, kind="stable")
            _, first = np.unique(numbers[prompts[order]], return_index=True)
            wanted: list[tuple[float | None, int]] = [(None, place) for place in np.sort(first)[:count]]
            wanted += _at_quantiles(len(order), int(count))
            for quantile, place in wanted:
                prompt = int(prompts[order[place]])
                positions, values = firing.within(latent, prompt)
                yield Example(latent, quantile, prompt, float(peaks[order[place]]), positions, values)
            bar.update()


def _at_quantiles(size: int, count: int) -> list[tuple[float | None, int]]:
    """Quantiles, evenly spaced and descending, and their places among `size` things in descending order."""
    odd = 2 * np.arange(count) + 1
    places = (odd * (size - 1) + count) // (2 * count)  # odd / (2 * count) of the way, rounded
    kept = np.diff(places, prepend=-1) > 0
    return list(zip((1 - odd / (2 * count))[kept].tolist(), places[kept].tolist(), strict=True)) if size else []
