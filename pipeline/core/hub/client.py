"""One client for all requests to a hub: it limits waiting and sizes, and decides who gets the token."""

import asyncio
import functools
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from huggingface_hub import constants
from yarl import URL

from pipeline.core.errors import UserError
from pipeline.core.hub.listing import RepoFile, read_commit, read_page
from pipeline.core.hub.repo import Repo

ANSWER_SECONDS = 60.0  # until an answer begins, redirects included; for one that is not a file, until it ends
LIST_SECONDS = 300.0  # for a whole list of files
MAX_ANSWER_BYTES = 16 << 20  # of an answer that is not a file
MAX_PAGES = 500
MAX_REDIRECTS = 8
SLOW_SECONDS, SLOW_BYTES = 30.0, 64 << 10  # a file of which less than this comes in this time takes too long
_REDIRECTED = (301, 302, 303, 307, 308)
_NEXT_PAGE = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next\b')
_UNREACHABLE = (
    aiohttp.ClientConnectorError,
    aiohttp.ServerTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.NonHttpUrlClientError,
    aiohttp.InvalidURL,
)
# what a connection can do in the middle of an answer: it may be worth another try
LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)


class Client:
    """Requests to HF_ENDPOINT about one repository and revision; a context manager.

    Any answer that is not a hub's is a UserError. The caller has to count and check the bytes of files.
    """

    def __init__(self, repo: Repo, revision: str) -> None:
        self.repo, self.revision = repo, revision
        try:
            self._hub = URL(constants.ENDPOINT).origin()
        except ValueError as error:
            raise repo.unreachable(error) from None
        from huggingface_hub import get_token  # not at the top: it fails where HF_ENDPOINT is no address

        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        self._token = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> "Client":
        if constants.HF_HUB_OFFLINE:
            raise self.repo.forbidden(self.revision)
        self._session = aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity"},  # an answer is then as long as it says
            connector=aiohttp.TCPConnector(ssl=_authorities()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                sock_connect=constants.HF_HUB_ETAG_TIMEOUT, sock_read=constants.HF_HUB_DOWNLOAD_TIMEOUT
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def commit(self) -> str:
        """Return the commit that the revision means."""
        answer, _ = await self._answer(URL(self.repo.api("revision", self.revision), encoded=True))
        try:
            return read_commit(answer)
        except ValueError as error:
            raise self.repo.not_a_hub(str(error)) from None

    async def files(self) -> dict[str, RepoFile]:
        """Return the list of all files of the revision, which must be a commit."""
        files: dict[str, RepoFile] = {}
        url = URL(f"{self.repo.api('tree', self.revision)}?recursive=true", encoded=True)
        try:
            async with asyncio.timeout(LIST_SECONDS):
                for _ in range(MAX_PAGES):
                    answer, following = await self._answer(url)
                    read_page(answer, files)
                    if following is None:
                        return files
                    url = following
        except TimeoutError:
            raise self.repo.too_slow("its list of files") from None
        except ValueError as error:
            raise self.repo.not_a_hub(str(error)) from None
        raise self.repo.not_a_hub(f"its list of files has more than {MAX_PAGES} pages")

    @asynccontextmanager
    async def get(self, url: URL, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the beginning of an answer with status 200 or 206. The caller limits how much of the body it reads.

        Raises: one of LOST for a connection that ends or is too slow to answer, else UserError.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._follow(url, headers)
        except TimeoutError as error:
            raise aiohttp.ServerTimeoutError(str(error) or "its answer does not begin in time") from error
        try:
            self._check(response)
            yield response
        finally:
            response.close()  # without reading what is left of it

    def explained(self, error: Exception) -> UserError:
        """Return a failed request as one line."""
        if isinstance(error, UserError):
            return error
        if isinstance(error, _UNREACHABLE):
            return self.repo.unreachable(error)
        if isinstance(error, LOST):
            return self.repo.broken_off(error)
        return self.repo.not_a_hub("its answer is not HTTP")

    async def _answer(self, url: URL) -> tuple[bytes, URL | None]:
        """Return a whole answer that is not a file, and where its next page is."""
        body = bytearray()
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self.get(url, {}) as response:
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise self.repo.not_a_hub(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
                return bytes(body), self._next_page(response)
        except aiohttp.ServerTimeoutError as error:
            raise self.explained(error) from error
        except TimeoutError:
            raise self.repo.too_slow(f"an answer takes more than {ANSWER_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise self.explained(error) from error

    async def _follow(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS):
            token = self._token if self._is_hub(url) else {}
            proxy = _proxy_of(url)
            response = await self._session.get(url, headers=headers | token, proxy=proxy, allow_redirects=False)
            if response.status not in _REDIRECTED:
                return response
            response.close()
            url = self._link(url, response.headers.get("Location", ""))
        raise self.repo.not_a_hub(f"it redirects more than {MAX_REDIRECTS} times")

    def _link(self, url: URL, target: str) -> URL:
        """Return where an answer of `url` leads. From an encrypted page, only to another encrypted one."""
        try:
            found = url.join(URL(target, encoded=True))
            found.origin()
        except ValueError:
            raise self.repo.not_a_hub("it leads to what is no address") from None
        if found.scheme not in ("https", url.scheme) or not target:
            raise self.repo.not_a_hub("it leads to what is no address of the web")
        return found

    def _next_page(self, response: aiohttp.ClientResponse) -> URL | None:
        match = _NEXT_PAGE.search(response.headers.get("Link", ""))
        if not match:
            return None
        url = self._link(response.url, match[1])
        if not self._is_hub(url):
            raise self.repo.not_a_hub("the next page of its answer is on another host")
        return url

    def _is_hub(self, url: URL) -> bool:
        return url.origin() == self._hub

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status, headers = response.status, response.headers
        if 400 <= status < 600:
            code, message = headers.get("X-Error-Code", ""), headers.get("X-Error-Message", "")
            raise self.repo.refused(status, code, message, self.revision)
        if status not in (200, 206):
            raise self.repo.not_a_hub(f"it answers with HTTP status {status}")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise self.repo.not_a_hub("its answer is compressed, which was not asked for")


def _proxy_of(url: URL) -> URL | None:
    """Return the environment's proxy for an address. aiohttp would also read ~/.netrc and send its content anywhere."""
    proxy = getproxies().get(url.scheme)
    if not proxy or not url.host or proxy_bypass(url.host):
        return None
    return URL(proxy if "://" in proxy else f"http://{proxy}")


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Trust the system's certificate authorities, and certifi's for a system that has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class Pace:
    """Watches whether bytes keep coming. Raises TimeoutError when too few came for too long."""

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def add(self, count: int) -> None:
        self._bytes += count
        now = time.monotonic()
        if now - self._since < SLOW_SECONDS:
            return
        if self._bytes < SLOW_BYTES:
            raise TimeoutError
        self._since, self._bytes = now, 0
