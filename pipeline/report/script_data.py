"""Data that a page opened from disk can load on demand: scripts that call `receive`, since files may not be fetched."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.files import write_text
from pipeline.core.text import visible

_NUMBERS = (int, float)


def write_script(folder: Path, name: str, value: Any) -> None:
    """Write <folder>/<name>.js, which hands the value to the page, with all its texts made visible.

    Only ASCII: nothing in it can end the script.
    """
    text = json.dumps(_seen(value), allow_nan=False, separators=(",", ":"))
    write_text(folder / f"{name}.js", f'receive("{name}",{text});\n')


def _seen(value: Any) -> Any:
    """The value with all its texts made visible. Most of it is numbers, which it is not called for."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: item if type(item) in _NUMBERS else _seen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _NUMBERS else _seen(item) for item in value]
    return value


def write_chunks(folder: Path, name: str, rows: Sequence[Any], size: int) -> None:
    """Write rows in files of `size`: name-0.js, name-1.js, ..."""
    for number, first in enumerate(range(0, len(rows), size)):
        write_script(folder, f"{name}-{number}", rows[first : first + size])


def brief(value: float | None, digits: int = 3) -> float | int | None:
    """To a few significant digits, as short as it can be written."""
    if value is None:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) else short
