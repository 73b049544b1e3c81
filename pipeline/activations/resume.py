"""Finished shards of an extraction that has not ended, kept so that it can go on where it was stopped.

<root>/<key>/<point>/00003.safetensors   a shard, as it will be published
<root>/<key>/00003.safetensors           its norms and token counts; written after the shard of every point,
                                         so where this file exists the shard is done
<root>/<key>.lock                        held by the process that writes these pieces
<root>/<folder>.lock                     held by the process that writes to that folder (a hash of its path)

`key` is a hash of everything that determines the content, so pieces of other parameters, data, models or code are
never mistaken for one's own. Publishing hard-links the shards into their folder, so no second copy is made.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.activations.store import shard_name, write_shard
from pipeline.core.errors import UserError
from pipeline.core.file_lock import locked
from pipeline.core.files import replacing
from pipeline.core.points import Point
from pipeline.lm.forward import Rows
from pipeline.lm.tokens import PromptTokens

_TARGET = "target"  # which folder the pieces were for
_REMOVED, _SECONDS_KEPT = ".removed", 7 * 86_400
_LIBRARIES = ("torch", "transformers", "gptqmodel", "auto-gptq")


class Pieces:
    """The finished shards of one extraction, in the folder `key` below `root`."""

    def __init__(self, root: Path, key: str) -> None:
        self.root = root
        self.key = key
        self.folder = root / key

    @contextmanager
    def held(self, target: Path) -> Iterator[None]:
        """Be the only writer of these pieces and of the folder `target`, and clean up what others left behind.

        Raises: UserError when another process is the writer.
        """
        name = hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:16]
        with (
            locked(self.root / f"{name}.lock", f"another process is extracting to {target}"),
            locked(self.root / f"{self.key}.lock", "another process is extracting the same activations"),
        ):
            self._prepare(target)
            yield
        with suppress(OSError):  # pieces or locks of others are in it
            self.root.rmdir()

    def _prepare(self, target: Path) -> None:
        """Remove half-written files of killed runs, and pieces that will never be used.

        Useless are pieces for the same target, which is about to hold something else, and pieces that have waited for
        more than a week. Other pieces may belong to an experiment that will be continued.
        """
        self.folder.mkdir(exist_ok=True)
        for unfinished in self.folder.rglob("*.tmp"):
            unfinished.unlink()
        (self.folder / _TARGET).write_text(str(target.resolve()), encoding="utf-8")
        for folder in self.root.iterdir():
            if folder.is_dir() and folder != self.folder and _is_useless(folder, target):
                with suppress(UserError), locked(self.root / f"{folder.name}.lock", "somebody is working on them"):
                    shutil.rmtree(folder)
        for lock in self.root.glob("*.lock"):
            if _age(lock) > _SECONDS_KEPT:
                with suppress(UserError), locked(lock, "it is held"):
                    pass  # which removes it

    def is_done(self, number: int) -> bool:
        """Return whether the shard of this number is complete at all points."""
        return (self.folder / shard_name(number)).is_file()

    def write(self, number: int, rows: Rows, norms: dict[Point, Tensor]) -> None:
        """Write a shard, and beside it the norm of each row, float64, and the number of tokens that were run."""
        for point, each in rows.of.items():
            write_shard(self.folder / str(point), number, each)
        known = {f"norms {point}": each for point, each in norms.items()}
        known["tokens"] = torch.tensor([rows.tokens_run, rows.tokens_padded])
        with replacing(self.folder / shard_name(number)) as temporary:
            save_file(known, temporary)

    def known(self, number: int, name: str) -> Tensor:
        """Return a tensor that was written beside a shard.

        `tokens` is int64 (2): tokens run, and the same with padding. `norms POINT` is float64 (rows).
        """
        with safe_open(self.folder / shard_name(number), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def publish(self, point: str, number: int, target: Path) -> None:
        """Link a shard of a point into the folder `target`, or copy it where links are not possible."""
        source = self.folder / point / shard_name(number)
        destination = target / shard_name(number)
        try:
            os.link(source, destination)
        except OSError:  # another file system, or one without links
            with replacing(destination) as temporary:
                shutil.copyfile(source, temporary)

    def remove(self) -> None:
        """Remove the pieces after they have been published.

        The folder is renamed first. If this is interrupted, what is left is recognised as nobody's.
        """
        nameless = self.folder.with_name(f"{self.key}{_REMOVED}")
        self.folder.rename(nameless)
        shutil.rmtree(nameless)


def _is_useless(folder: Path, target: Path) -> bool:
    try:
        same_target = (folder / _TARGET).read_text(encoding="utf-8") == str(target.resolve())
        old = _age(folder / _TARGET) > _SECONDS_KEPT
    except OSError:
        return True
    return same_target or old or folder.name.endswith(_REMOVED)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def content_key(settings: dict[str, Any], tokens: PromptTokens) -> str:
    """Return a hash of the settings, the tokens, and the code and libraries that turn them into activations."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted([*here.glob("*.py"), *(here.parent / "lm").glob("*.py")]):
        digest.update(file.read_bytes())
    digest.update(json.dumps(settings | {"libraries": [_version(name) for name in _LIBRARIES]}).encode())
    for prompt_id, ids, kept in zip(tokens.prompt_ids, tokens.ids, tokens.kept, strict=True):
        digest.update(f"{prompt_id} {len(ids)} {len(kept)}\0".encode() + ids.tobytes() + kept.tobytes())
    return digest.hexdigest()[:32]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
