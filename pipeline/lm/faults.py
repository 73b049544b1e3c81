"""Turn what libraries raise at a model's files into one line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.core.errors import UserError, one_line
from pipeline.core.system_errors import system_line

_LONGEST = 300  # characters of a library's message that are shown


@contextmanager
def explained(problem: str, remedy: str, hide: tuple[str, str] = ("", "")) -> Iterator[None]:
    """Turn whatever a library raises in the block into a UserError: `problem` (the library's words): `remedy`.

    The block should hold nothing but calls of libraries on files of others. Such files can make libraries raise errors
    of any type, and where compiled code panics, not even an Exception. Lack of memory is reported as such.

    Args:
        hide: a text in the library's words, such as a temporary path, and what to show in its place.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            problem, remedy = f"{problem}: out of memory", "free some memory, or choose a smaller model"
        elif line := system_line(error):
            raise UserError(line) from None
        words = first_line(error)
        raise UserError(f"{problem} ({words.replace(*hide) if hide[0] else words}): {remedy}") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out. On the CPU, torch says so only in words."""
    words = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, printable and not too long; else its type."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, KeyError):
        lines = [f"{type(error).__name__} {error}".strip()]
    if lines[0].endswith(":") and len(lines) > 1:  # a heading
        lines[0] += f" {lines[1].strip()}"
    return one_line(lines[0], _LONGEST)
