"""What params.yaml names on this machine: what DVC cannot hash to its end is refused before DVC opens it."""

import os
import stat
from pathlib import Path

from pipeline.core.errors import UserError, shown
from pipeline.params.base import PARAMS_FILE

MOST_FILES = 10_000  # in a directory
_NEVER_ENDING = (Path("/proc"), Path("/sys"))  # of regular files only in name
_KINDS = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_file(key: str, name: str) -> None:
    """Raise UserError when what a key names is there and is no regular file.

    What is missing is told where it is read.
    """
    found = _mode(key, name, Path(name))
    if found is not None and not stat.S_ISREG(found):
        raise _refused(key, name, f"is {_kind(found)}, not a file")


def check_directory(key: str, name: str) -> None:
    """Raise UserError when what a key names is there and is no directory of regular files, at any depth."""
    found = _mode(key, name, Path(name))
    if found is None:
        return
    if not stat.S_ISDIR(found):
        raise _refused(key, name, f"is {_kind(found)}, not a directory")
    files = 0
    for folder, _, names in os.walk(name):
        files += len(names)
        if files > MOST_FILES:
            raise _refused(key, name, f"holds more than {MOST_FILES} files")
        for each in names:
            inside = _mode(key, name, Path(folder, each))
            if inside is not None and not stat.S_ISREG(inside):
                raise _refused(key, name, f"holds {shown(each)}, which is {_kind(inside)}, not a file")


def _mode(key: str, name: str, path: Path) -> int | None:
    """The kind of what is at `path`, links followed; None when nothing is."""
    if "://" in name:
        raise _refused(key, name, "is an address: fetch it first")
    try:
        mode = path.stat().st_mode
        real = path.resolve()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        inside = f": {shown(path.name)} in it" if path != Path(name) else ""
        raise _refused(key, name, f"cannot be looked at{inside} ({error.strerror})") from None
    except ValueError as error:  # a NUL, or half a surrogate pair
        raise _refused(key, name, f"is no file's name ({error})") from None
    if any(real.is_relative_to(never) for never in _NEVER_ENDING):
        raise _refused(key, name, "is not on a disk but made up by the system")
    return mode


def _kind(mode: int) -> str:
    return next((words for test, words in _KINDS.items() if test(mode)), "a file")


def _refused(key: str, name: str, why: str) -> UserError:
    return UserError(f"{PARAMS_FILE}: {key} = {shown(name)} is not allowed: it {why}")
