"""Where prompts come from may be one place or thousands: figures and tables list the largest and sum up the others."""

from collections.abc import Mapping

LISTED = 30


def listed(counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The sources that are listed, largest first, and all others. counts: of prompts, by source."""
    ranked = sorted(counts, key=lambda source: (-counts[source], source))
    return ranked[:LISTED], ranked[LISTED:]


def sum_of(others: list[str]) -> list[str]:
    """What the row of all others is called; without others there is none."""
    return [f"{len(others):,} other source{'s' if len(others) > 1 else ''}"] if others else []
