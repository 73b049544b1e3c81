"""Random choices among prompts that do not depend on the prompts' order or on how many others there are."""

import hashlib
from collections.abc import Sequence


def draw_key(seed: int, purpose: str, prompt_id: str) -> str:
    """Sorting prompts by this key shuffles them: a hash, uniform and independent of the other prompts.

    Draws for different purposes are independent, too: no prompt is always among the first.
    """
    return hashlib.sha256(f"{seed}\0{purpose}\0{prompt_id}".encode()).hexdigest()


def hold_out_groups(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """A random `fraction` of the distinct `groups`, at least one of them and never all."""
    distinct = sorted(set(groups), key=lambda name: draw_key(seed, "hold out", name))
    return set(distinct[: min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)])
