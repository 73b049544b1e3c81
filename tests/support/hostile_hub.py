"""A hub on a loopback port that says what a table of attacks makes it say, byte by byte."""

import hashlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, Literal
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Answer:
    """Bytes as they go over the line, and what follows: `drip` a byte at a time, `flood` the same for ever."""

    sent: bytes
    then: Literal["close", "drip", "flood", "hang"] = "close"
    more: bytes = b"x"  # what drips or floods


@dataclass(frozen=True)
class Request:
    host: str
    path: str
    token: bool


def http(body: bytes = b"", status: str = "200 OK", length: bool = True, **headers: str) -> bytes:
    """An answer of HTTP; `_` in a header's name stands for `-`."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"Content-Length: {len(body)}"] if length else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def entry(path: str, content: bytes, /, **changes: Any) -> dict[str, Any]:
    """A file in the hub's list, with keys changed; a change to `...` leaves the key out."""
    sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    made: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": sha1}
    if path.endswith((".safetensors", ".parquet")):
        made["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 128}
    return {key: value for key, value in (made | changes).items() if value is not ...}


class HostileHub(ThreadingTCPServer):
    """Each repository `owner/name` has the same files, and answers of its own instead of the honest ones.

    `answers[name]` are those to a stage of a run: `revision`, `tree`, or a file's path; the last one stays. The
    texts `HUB` and `OTHER` in them stand for this hub's address and for the same port on another host.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, files: dict[str, dict[str, bytes]], answers: dict[str, tuple[str, tuple[Answer, ...]]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.answers = files, answers
        self.honest = False
        self.requests: list[Request] = []
        self.asked: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.port = self.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.other = f"http://localhost:{self.port}"


@contextmanager
def serving(hub: HostileHub) -> Iterator[HostileHub]:
    with hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.stopping.set()
            hub.shutdown()
            thread.join()


class _Handler(StreamRequestHandler):
    server: HostileHub

    def handle(self) -> None:
        with suppress(OSError):
            self._answer()
            self.connection.shutdown(socket.SHUT_WR)

    def _answer(self) -> None:
        _, target, _ = self.rfile.readline().decode().split(" ")
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        path = unquote(target.split("?")[0])
        self.server.requests.append(Request(headers.get("host", ""), path, "authorization" in headers))
        repo, stage = _parse(path)
        attacked, answers = self.server.answers.get(repo, ("", ()))
        if not self.server.honest and stage == attacked:
            number = self.server.asked[path]
            self.server.asked[path] += 1
            self._send(answers[min(number, len(answers) - 1)])
        else:
            self._be_honest(repo, stage, headers.get("range"))

    def _send(self, answer: Answer) -> None:
        server = self.server
        self.wfile.write(answer.sent.replace(b"HUB", server.endpoint.encode()).replace(b"OTHER", server.other.encode()))
        while answer.then == "flood":
            self.wfile.write(answer.more * 65536)
        while answer.then == "drip" and not server.stopping.wait(0.1):
            self.wfile.write(answer.more)
        if answer.then == "hang":
            server.stopping.wait()

    def _be_honest(self, repo: str, stage: str, range_: str | None) -> None:
        files = self.server.files.get(repo, self.server.files[""])
        if stage == "revision":
            self.wfile.write(http(json.dumps({"sha": COMMIT}).encode()))
        elif stage == "tree":
            self.wfile.write(http(json.dumps([entry(*file) for file in files.items()]).encode()))
        elif stage not in files:
            self.wfile.write(http(status="404 Not Found", X_Error_Code="EntryNotFound"))
        elif range_:
            start, size = int(range_.removeprefix("bytes=").rstrip("-")), len(files[stage])
            part: dict[str, Any] = {"Content_Range": f"bytes {start}-{size - 1}/{size}"}
            self.wfile.write(http(files[stage][start:], "206 Partial Content", **part))
        else:
            self.wfile.write(http(files[stage]))


def _parse(path: str) -> tuple[str, str]:
    """The repository's name without its owner and the stage that a path asks for."""
    parts = path.strip("/").split("/")
    if parts[:1] == ["api"] and len(parts) >= 5:
        return parts[3], parts[4]
    parts = parts[parts[:1] == ["datasets"] :]
    return (parts[1], "/".join(parts[4:])) if len(parts) > 4 else ("", path)
