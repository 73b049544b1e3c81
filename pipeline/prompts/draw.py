"""Random choices among prompts that depend neither on the prompts' order nor on which others there are."""

import hashlib
from collections.abc import Sequence


def draw_key(seed: int, purpose: str, prompt_id: str) -> str:
    """Return a key by which sorting shuffles prompts: a hash, uniform and independent of the other prompts.

    Draws for different purposes are independent, too: no prompt is always among the first.
    """
    return hashlib.sha256(f"{seed}\0{purpose}\0{prompt_id}".encode()).hexdigest()


def hold_out_groups(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Draw a `fraction` of the distinct `groups` at random: at least one, and never all."""
    distinct = sorted(set(groups), key=lambda name: draw_key(seed, "hold out", name))
    return set(distinct[: min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)])
