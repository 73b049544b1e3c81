"""Locks between processes, which the system releases when their holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import UserError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` within the block, and remove it afterwards.

    Raises: UserError when another process holds the lock; the message begins with `what`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{what}: wait for it to end, or stop it, then run again (lock: {path})") from None
            if not _is_still(path, file.fileno()):
                continue  # its last holder removed it between opening and locking
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
