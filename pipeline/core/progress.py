"""One kind of progress bar for all long work: a bar on a terminal, a line every half minute elsewhere."""

import os
import sys
from typing import Any

from tqdm import tqdm

from pipeline.core.errors import one_line

SECONDS_BETWEEN_LINES = 30.0


class _SlowBar(tqdm):
    """A bar that only `update` refreshes: tqdm's own monitor would refresh it every ten seconds."""

    monitor_interval = 0


class _Lines:
    """A file for tqdm that ends each refresh with a newline instead of going back to the line's start."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip("\r\n ") + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(total: int | float, description: str, unit: str) -> "tqdm[Any]":
    """Return a tqdm bar with rate and remaining time, to be used as a context manager.

    Call `bar.update(n)` after n of `total` units. Of several processes that torchrun started, only the first shows a
    bar.
    """
    common: dict[str, Any] = {
        "total": total,
        "desc": one_line(description, 80),
        "unit": unit,
        "unit_scale": True,
        "disable": os.environ.get("RANK", "0") != "0",
    }
    if sys.stderr.isatty():
        return tqdm(**common, file=sys.stderr, dynamic_ncols=True)
    seconds = SECONDS_BETWEEN_LINES
    return _SlowBar(**common, file=_Lines(), mininterval=seconds, maxinterval=seconds, delay=seconds, ncols=100)
