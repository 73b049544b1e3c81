"""Choose prompts that show what a latent does: those where it is strongest, and some from its whole range."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.progress import progress
from pipeline.latents.firing import Firing


@dataclass(frozen=True)
class Example:
    """One prompt that shows what one latent does."""

    latent: int
    """Number of the latent."""
    quantile: float | None
    """None for one of the latent's strongest prompts. Otherwise the prompt stands for this quantile, such as 0.5, of
    the latent's largest activations in all prompts where it is active.
    """
    prompt: int
    """Number of the prompt."""
    activation: float
    """The latent's largest activation in the prompt."""
    positions: np.ndarray
    """int: the tokens of the prompt on which the latent is active, counted from the prompt's first kept token."""
    values: np.ndarray
    """float32: the latent's activations at these tokens."""


def examples(firing: Firing, groups: np.ndarray, counts: np.ndarray) -> Iterator[Example]:
    """Yield examples of each latent: its strongest prompts first, then prompts at even quantiles from high to low.

    Args:
        firing: where the latents are active.
        groups: near-duplicate group of each prompt (N). No two of a latent's strongest prompts are of the same group.
        counts: int (L), how many examples of each kind a latent is to have. A latent that too few prompts or groups
            activate gets fewer. No prompt stands for two quantiles. For a count of 5 the quantiles are 0.9, 0.7, 0.5,
            0.3 and 0.1.
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
    """Return quantiles, evenly spaced and descending, and their places among `size` things in descending order."""
    odd = 2 * np.arange(count) + 1
    places = (odd * (size - 1) + count) // (2 * count)  # odd / (2 * count) of the way, rounded
    kept = np.diff(places, prepend=-1) > 0
    return list(zip((1 - odd / (2 * count))[kept].tolist(), places[kept].tolist(), strict=True)) if size else []
