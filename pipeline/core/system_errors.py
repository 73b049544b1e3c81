"""Turn errors of the operating system into one line: which file it was, and what to do."""

import errno
import os
import re
from collections.abc import Iterator

from pipeline.core.errors import one_line

NOTE = "while writing "  # how `pipeline.core.files.replacing` says which file it was

_NOT_ALLOWED = "may not be read or written: change its owner or mode, or its folder's, or run as the user that owns it"
_FULL = "has no room: its disk is full or over its quota: free some space and run again; finished files are kept"
_FAILING = "cannot be reached: its disk or network file system fails: check that (dmesg, mount) and run again"
_FOLDER = "is a file where a folder is wanted, or the other way round: rename or remove it"
_TOO_MANY_FILES = "cannot be opened: too many files are open: raise the limit (ulimit -n)"
_NO_LOCKS = "cannot be locked: its file system has no locks: put the project on one that has"
_REMEDIES = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "is on a file system that is read-only: mount it to be written, or work on a copy elsewhere",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "is larger than files may be here: raise the limit (ulimit -f) or use another file system",
    errno.ENAMETOOLONG: "has a name that is too long: shorten it, or the path to the project",
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
    errno.EIO: _FAILING,
    errno.ENXIO: _FAILING,
    errno.ENODEV: _FAILING,
    errno.ESTALE: _FAILING,
    errno.ENOTCONN: _FAILING,
    errno.ENOTDIR: _FOLDER,
    errno.EISDIR: _FOLDER,
    errno.EEXIST: _FOLDER,
    errno.ELOOP: "is a link that leads back to itself: remove it, or let it lead to the file",
    errno.EBUSY: "is in use: end what uses it and run again",
    errno.ETXTBSY: "is in use: end what uses it and run again",
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: "is on a file system that cannot do this: put the project on another one",
}
_MEMORY = re.compile(r"(can't|cannot) allocate memory|not enough memory|out of memory|ALLOC_FAILED", re.IGNORECASE)
# libraries that wrap the system's error keep its number in their text: "(os error 28)", "[Errno 28]"
_NUMBER = re.compile(r"\b(?:os error|errno) (\d+)\b", re.IGNORECASE)


def system_line(error: BaseException) -> str | None:
    """Return the line for an error that comes from the operating system; None for any other error, which is a bug."""
    chain = list(_chain(error))
    for cause in chain:
        if _is_memory(cause):
            detail = one_line(str(cause), 200)
            return (
                f"out of memory{f' ({detail})' if detail else ''}: lower extract.batch_tokens, filter.max_prompts or "
                "the width of the SAE, set sae.memory_mb, or use a machine with more"
            )
        if isinstance(cause, BlockingIOError) or str(cause) == "can't start new thread":
            return "no more processes or threads may be started: raise the limit (ulimit -u), or end others"
        number = _number(cause)
        if number in _REMEDIES:
            return f"{_file(chain)} {_REMEDIES[number]} ({os.strerror(number)})"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and bool(_MEMORY.search(str(error)))


def _number(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else 0


def _file(chain: list[BaseException]) -> str:
    """Return the file that was to be read or written, if one of the errors knows it."""
    for cause in chain:
        for note in getattr(cause, "__notes__", []):
            if note.startswith(NOTE):
                return note.removeprefix(NOTE)
        name = getattr(cause, "filename", None)
        if isinstance(name, str | bytes | os.PathLike):
            return os.fsdecode(name)
    return "a file of the project"
