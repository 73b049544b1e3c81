"""Read the list of a commit's files, from the hub or from the cache. Refuse unsafe names and missing digests."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from unicodedata import category

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

MAX_FILES = 200_000
_MAX_PATH_BYTES, _MAX_NAME_BYTES = 1024, 255
_FORMAT = 1  # of the lists that huggingface_hub keeps in its cache


def _safe_path(path: Any) -> Any:
    """Check that a file's path leads out of the repository on no system."""
    if not isinstance(path, str):
        return path  # the type is refused later
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise ValueError("a file's name is not Unicode") from None
    parts = encoded.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise ValueError("a file's name leaves the repository")
    if len(encoded) > _MAX_PATH_BYTES or any(len(part) > _MAX_NAME_BYTES for part in parts):
        raise ValueError("a file's name is too long")
    if any(character == "\\" or category(character) == "Cc" for character in path):
        raise ValueError("a file's name holds a backslash or a control character")
    return path


Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Size = Annotated[int, Field(ge=0, le=2**50)]
_Path = Annotated[str, BeforeValidator(_safe_path)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Revision(_Strict):
    sha: Commit


class _Lfs(_Strict):
    oid: _Sha256
    size: _Size


class _Entry(_Strict):
    """One entry of the hub's list."""

    type: Literal["file", "directory"]
    path: _Path
    size: _Size
    oid: Commit
    lfs: _Lfs | None = None


class RepoFile(_Strict):
    """A file of a commit, as the cache's list keeps it.

    A large file has the sha256 of its bytes; of any other, `blob_id` is git's sha1 of them.
    """

    size: _Size
    blob_id: Commit
    lfs_sha256: _Sha256 | None = None
    lfs_size: _Size | None = None

    @property
    def digest(self) -> str:
        """The digest that the bytes must have; the cache names its blobs after it."""
        return self.lfs_sha256 or self.blob_id

    def hasher(self) -> Any:
        return hashlib.sha256() if self.lfs_sha256 else hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    def is_whole(self, path: Path, update: Callable[[int], object]) -> bool:
        """Return whether a file on disk has the right size and digest. `update` gets the bytes of each piece read."""
        if path.stat().st_size != self.size:
            return False
        hasher = self.hasher()
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                hasher.update(piece)
                update(len(piece))
        return bool(hasher.hexdigest() == self.digest)


class _Kept(_Strict):
    format_version: Literal[1]
    files: dict[_Path, RepoFile]


_PAGE = TypeAdapter(list[_Entry])


def read_commit(answer: bytes) -> str:
    """Read the commit that a revision means from the hub's answer. Raise ValueError for any other answer."""
    return _read(_Revision.model_validate_json, answer).sha


def read_page(answer: bytes, files: dict[str, RepoFile]) -> None:
    """Add the files of one page of the hub's list to `files`. Raise ValueError for any other answer."""
    for entry in _read(_PAGE.validate_json, answer):
        if entry.type == "directory":
            continue
        if entry.path in files:
            raise ValueError("its list names a file twice")
        if entry.lfs and entry.lfs.size != entry.size:
            raise ValueError("its list has two sizes for a file")
        if len(files) == MAX_FILES:
            raise ValueError(f"its list has more than {MAX_FILES} files")
        lfs = {"lfs_sha256": entry.lfs.oid, "lfs_size": entry.lfs.size} if entry.lfs else {}
        files[entry.path] = RepoFile(size=entry.size, blob_id=entry.oid, **lfs)


def read_kept(text: bytes) -> dict[str, RepoFile]:
    """Read a list that the cache holds. Raise ValueError for any other text."""
    return _read(_Kept.model_validate_json, text).files


def kept(files: dict[str, RepoFile]) -> str:
    """Write a list as the cache holds it."""
    rows = {path: file.model_dump(exclude_none=True) for path, file in sorted(files.items())}
    return json.dumps({"format_version": _FORMAT, "files": rows}, indent=1)


def _read(validate: Callable[[bytes], Any], text: bytes) -> Any:
    try:
        return validate(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"at {_where(first['loc'])}: {first['msg']}") from None


def _where(location: Iterable[int | str]) -> str:
    return ".".join(ascii(part)[:40] for part in location) or "the start"
