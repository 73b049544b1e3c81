"""What takes long to make is made once for all tests, also where they run in several processes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(tmp_path_factory: pytest.TempPathFactory, worker: str, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` has filled, in whichever process came first. worker: xdist's `worker_id`."""
    shared = tmp_path_factory.getbasetemp()
    if worker != "master":  # each worker has a folder of its own in that of the run
        shared = shared.parent
    folder, is_made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not is_made.exists():
            folder.mkdir()  # fails where it failed before
            make(folder)
            is_made.touch()
    return folder
