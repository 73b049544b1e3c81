"""Removing what earlier parameters left in folders that a stage depends on as a whole."""

import shutil
from collections.abc import Sequence
from pathlib import Path


def keep_only(folder: Path, names: Sequence[str]) -> None:
    """Remove all folders and files that have none of these names, with or without a suffix.

    No stage owns those any more, but they would tell two equal runs apart.
    """
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in names or (entry.is_file() and entry.stem in names):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
