"""Download one file: go on where a connection broke off, take no more bytes than listed, keep only the right ones."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from pipeline.core.hub.cache import Cache
from pipeline.core.hub.client import LOST, Client, Pace
from pipeline.core.hub.listing import RepoFile
from pipeline.core.hub.repo import Refusal

TRIES = 5
PAUSE_SECONDS = 1.0  # before the second try, twice as long before each further one
_PROGRESS_BYTES = 1 << 20  # a try that brings as much is followed by as many again
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


async def download(client: Client, cache: Cache, path: str, file: RepoFile, update: Callable[[int], object]) -> None:
    """Download a file of a commit into the cache.

    Args:
        path: the file's path in the repository.
        update: called with the number of bytes of each piece that comes.

    Raises: UserError when the hub does not deliver the file. Then nothing of it is kept.
    """
    with cache.new_blob(path, file) as blob, blob.open("xb") as out:
        part = _Part(out, file, update)
        url = URL(client.repo.file(client.revision, path), encoded=True)
        tries, reached = 1, 0  # most bytes that any try has come to: to start again and come back is no progress
        while part.size < file.size:
            try:
                await _receive(client, url, path, part)
            except (*LOST, Refusal) as error:
                tries = 1 if part.size - reached >= _PROGRESS_BYTES else tries + 1
                reached = max(reached, part.size)
                if tries > TRIES or (isinstance(error, Refusal) and not error.may_pass):
                    raise client.explained(error) from error
                await asyncio.sleep(PAUSE_SECONDS * 2 ** (tries - 1))
            except TimeoutError:
                raise client.repo.too_slow(path) from None
            except (aiohttp.ClientError, ValueError) as error:
                raise client.explained(error) from error
        if part.digest != file.digest:
            raise client.repo.wrong_bytes(path)


class _Part:
    """The bytes of a file that have come so far, hashed as they come."""

    def __init__(self, out: Any, file: RepoFile, update: Callable[[int], object]) -> None:
        self.file, self.size = file, 0
        self._out, self._update, self._hasher = out, update, file.hasher()

    @property
    def digest(self) -> str:
        return str(self._hasher.hexdigest())

    def add(self, piece: bytes) -> None:
        self._out.write(piece)
        self._hasher.update(piece)
        self.size += len(piece)
        self._update(len(piece))

    def start_again(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self._update(-self.size)
        self.size, self._hasher = 0, self.file.hasher()


async def _receive(client: Client, url: URL, path: str, part: _Part) -> None:
    """Request what is missing of a file, and take as much of it as comes."""
    async with client.get(url, {"Range": f"bytes={part.size}-"} if part.size else {}) as response:
        if response.status == 200:
            part.start_again()
        elif not _continues(response, part):
            raise client.repo.not_a_hub(f"it sends another part of {path} than was asked for")
        missing = part.file.size - part.size
        if response.content_length not in (None, missing):
            raise client.repo.wrong_length(path)
        pace = Pace()
        async for piece in response.content.iter_any():
            if part.size + len(piece) > part.file.size:
                raise client.repo.wrong_length(path)
            part.add(piece)
            pace.add(len(piece))
        if part.size < part.file.size:
            raise client.repo.wrong_length(path)


def _continues(response: aiohttp.ClientResponse, part: _Part) -> bool:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return bool(match and part.size == int(match[1]) > 0 and match[2] in ("*", str(part.file.size)))
