"""Read and write one commit in the Hugging Face cache, and nothing outside that."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants

from pipeline.core.errors import UserError
from pipeline.core.files import write_text
from pipeline.core.hub.listing import RepoFile, kept, read_kept
from pipeline.core.hub.repo import Repo

_MAX_LIST_BYTES = 1 << 27


class Cache:
    """A commit in the cache, in the layout of huggingface_hub, with which the cache is shared.

    `blobs/<digest>` are the bytes. `snapshots/<commit>/<path>` link to them, or are files where there are no links.
    `trees/<commit>.json` is the list of files. Paths are made of checked names only. A path that still leads out of the
    cache, through a link that is there, is neither read nor written nor deleted: that is a UserError.
    """

    def __init__(self, repo: Repo, commit: str) -> None:
        self._folder = Path(constants.HF_HUB_CACHE, f"{repo.kind}s--{repo.name.replace('/', '--')}")
        self._repo = repo
        self._list = self._folder / "trees" / f"{commit}.json"
        self.directory = self._folder / "snapshots" / commit

    def files(self) -> dict[str, RepoFile] | None:
        """Return the list of the commit's files, or None where there is none that can be used."""
        path = self._inside(self._list)
        if not path.is_file() or path.stat().st_size > _MAX_LIST_BYTES:
            return None
        try:
            return read_kept(path.read_bytes())
        except ValueError:
            return None

    def keep_files(self, files: dict[str, RepoFile]) -> None:
        """Write the list of the commit's files."""
        with self._writing():
            write_text(self._inside(self._list), kept(files))

    def has(self, path: str) -> bool:
        """Return whether there is a file of this path, whole or not."""
        return self._inside(self.directory / path).is_file()

    def path(self, path: str) -> Path:
        """Return where the bytes of a file are."""
        return self._inside(self.directory / path)

    def delete(self, path: str, file: RepoFile) -> None:
        """Delete a file and its bytes."""
        for each in (self.directory / path, self._blob(file)):
            self._inside(each)
            each.unlink(missing_ok=True)

    def check_space(self, size: int) -> None:
        """Raise UserError if the disk has no room for so many bytes."""
        folder = next(each for each in (self._folder, *self._folder.absolute().parents) if each.is_dir())
        free = shutil.disk_usage(folder).free
        if size > free:
            raise UserError(
                f"{self._repo} needs {size / 1e9:.1f} GB in {constants.HF_HUB_CACHE}, whose disk has {free / 1e9:.1f} "
                "GB free: free some space, or set HF_HOME to a folder on another disk"
            )

    @contextmanager
    def new_blob(self, path: str, file: RepoFile) -> Iterator[Path]:
        """Yield a path for the bytes of a file. When the block succeeds they become the file, else they are deleted."""
        blob = self._blob(file)
        with self._writing():
            self._inside(blob).parent.mkdir(parents=True, exist_ok=True)
            part = blob.with_name(f"{blob.name}.{uuid.uuid4().hex}.incomplete")
            try:
                yield part
                os.replace(part, blob)
            finally:
                part.unlink(missing_ok=True)
            self._link(path, blob)

    def link(self, path: str, file: RepoFile) -> bool:
        """Link a file to bytes that another commit left in the cache, if they are whole. Return whether they are."""
        blob = self._blob(file)
        if not self._inside(blob).is_file() or not file.is_whole(blob, lambda _: None):
            return False
        with self._writing():
            self._link(path, blob)
        return True

    def _link(self, path: str, blob: Path) -> None:
        target = self.directory / path
        self._inside(target.parent).mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if not getattr(constants, "HF_HUB_DISABLE_SYMLINKS", False):
            try:
                target.symlink_to(os.path.relpath(blob, target.parent))
                return
            except OSError:
                pass  # a file system, or a Windows account, without links
        os.replace(blob, target)

    def _blob(self, file: RepoFile) -> Path:
        return self._folder / "blobs" / file.digest

    def _inside(self, path: Path) -> Path:
        """Return a path with all links followed. Raise UserError when it is not in the cache."""
        try:
            resolved = path.resolve()
            roots = [
                Path(constants.HF_HUB_CACHE).resolve(),
                self._folder.resolve(),
            ]  # either may be a link of the user's
        except (OSError, RuntimeError):  # links in a circle
            roots = []
        if not any(resolved.is_relative_to(root) for root in roots):
            raise UserError(
                f"{path} leads out of the Hugging Face cache: delete it (or the link among its folders), and run again"
            )
        return resolved

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(
                f"{self._repo} cannot be kept in the cache ({error}): set HF_HOME to a folder of yours"
            ) from error
