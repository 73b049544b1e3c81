"""What the libraries raise at the files of a model, said in one line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.core.errors import UserError
from pipeline.core.system_errors import system_line

_LONGEST = 300  # characters of a library's message that are shown


@contextmanager
def explained(problem: str, remedy: str, hide: tuple[str, str] = ("", "")) -> Iterator[None]:
    """Turn whatever a library raises in the block into a UserError: `problem` (the library's words): `remedy`.

    To be put around calls of libraries alone, with files of others as their input: what such files make them raise
    is of any type, and where compiled code panics not even an Exception. Too little memory is said as that.

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
    """Whether memory ran out; on the CPU torch says so in words alone."""
    words = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )


def first_line(error: BaseException) -> str:
    """The first line that tells in an error's message, printable and not too long; its type where it has none."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, KeyError):
        lines = [f"{type(error).__name__} {error}".strip()]
    if lines[0].endswith(":") and len(lines) > 1:  # a heading
        lines[0] += f" {lines[1].strip()}"
    return _printable(lines[0])


def shown(value: object) -> str:
    """A value of a file as it may stand in a line."""
    return _printable(repr(value))


def _printable(text: str) -> str:
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
