"""A small Hugging Face hub on a loopback port: real HTTP for the hub's clients, with faults to switch on.

It knows the branch `main`, which means one commit, and keeps .safetensors and .parquet files as the hub keeps
large ones: behind a redirect to another host, with the sha256 as ETag.
"""

import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Faults:
    """What goes wrong; nothing at first."""

    api: tuple[int, str] | None = None  # status and X-Error-Code of every answer about a repository
    file: tuple[int, str] | None = None  # of every answer about a file
    web_page: bool = False  # answer everything with a web page, as a network that wants a login does
    silent: bool = False  # take requests and never answer
    cut_at: int | None = None  # close the connection when this byte of a file is reached,
    cuts: int | None = None  # so many times; None: always
    reset: bool = False  # cut by a reset instead of an orderly end
    wrong_bytes: str | None = None  # the file to send with one byte changed
    xet: bool = False  # offer large files from a chunk storage, which then has none of them
    forgets: bool = False  # of a file that was cut send the beginning alone when it is to go on, and cut later
    short: str | None = None  # the file to send without its last byte, as if it were whole


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class Hub(ThreadingHTTPServer):
    """One dataset and one model, each a directory of files; `endpoint` is what HF_ENDPOINT has to be."""

    daemon_threads = True

    def __init__(self, repos: dict[str, Path]) -> None:
        """`repos`: directories by `datasets/owner/name` or `models/owner/name`."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = repos
        self.faults = Faults()
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}/storage"  # to clients, another host

    def asked_for(self, name: str) -> list[Request]:
        """The requests for the bytes of a file."""
        return [each for each in self.requests if each.method == "GET" and each.path.endswith(f"/{name}")]


@contextmanager
def serving(repos: dict[str, Path]) -> Iterator[Hub]:
    """A running hub."""
    with Hub(repos) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.stopping.set()
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(
            Request(self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        faults = self.server.faults
        if faults.silent:
            self.server.stopping.wait()
            self.close_connection = True
        elif faults.web_page:
            self._answer(200, b"<html>Welcome to the hotel's network</html>", {"Content-Type": "text/html"})
        elif path.startswith("/storage/"):
            self._send_file(Path(path.removeprefix("/storage")))
        elif path == "/xet-token":
            storage = f"{self.server.endpoint}/xet"
            self._answer(
                200,
                b"",
                {"X-Xet-Cas-Url": storage, "X-Xet-Access-Token": "-", "X-Xet-Token-Expiration": str(1 << 40)},
            )
        elif path.count("/") < 5:
            self._refuse(404, "")
        elif path.startswith("/api/"):
            kind, owner, name, what, revision = path.removeprefix("/api/").split("/", 4)
            directory = self._find(f"{kind}/{owner}/{name}", revision, faults.api)
            if directory and what == "tree":
                self._answer_json([_entry(file, directory) for file in _files(directory)])
            elif directory:
                self._answer_json({"id": f"{owner}/{name}", "sha": COMMIT, "private": False})
        else:
            full = path if path.startswith("/datasets/") else f"/models{path}"
            kind, owner, name, _, revision, file = full[1:].split("/", 5)
            directory = self._find(f"{kind}/{owner}/{name}", revision, faults.file)
            if directory:
                self._resolve(directory / file)

    def _find(self, repo: str, revision: str, fault: tuple[int, str] | None) -> Path | None:
        if fault:
            self._refuse(*fault)
        elif repo not in self.server.repos:
            self._refuse(401, "RepoNotFound")  # what the hub says to those who are not logged in
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            return self.server.repos[repo]
        return None

    def _resolve(self, file: Path) -> None:
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_id(file.read_bytes())}"'}
        if _is_large(file):
            headers |= {"X-Linked-Etag": f'"{_sha256(file)}"', "X-Linked-Size": str(file.stat().st_size)}
            if self.server.faults.xet:
                headers |= {
                    "X-Xet-Hash": "a" * 64,
                    "X-Xet-Refresh-Route": f"{self.server.endpoint}/xet-token",
                }
            self._answer(302, b"", headers | {"Location": f"{self.server.storage}{file}"})
        else:
            self._send_file(file, headers)

    def _send_file(self, file: Path, headers: dict[str, str] | None = None) -> None:
        faults = self.server.faults
        content = bytearray(file.read_bytes())
        if faults.wrong_bytes == file.name:
            content[len(content) // 2] ^= 1
        if faults.short == file.name:
            del content[-1]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"Accept-Ranges": "bytes", **(headers or {})}
        if faults.forgets and start > 100:
            self._answer(200, bytes(content[:100]), headers, length=len(content))
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = len(content)
        if self.command == "GET" and faults.cut_at is not None and end > faults.cut_at and faults.cuts != 0:
            faults.cuts = faults.cuts and faults.cuts - 1
            end = max(start, faults.cut_at)
        self._answer(206 if start else 200, bytes(content[start:end]), headers, length=len(content) - start)

    def _answer_json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code, "X-Error-Message": f"refused: {code}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if length is not None and length != len(body):
            self.close_connection = True
            if self.server.faults.reset:
                time.sleep(0.2)  # for what is sent to arrive: a reset discards the rest
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _entry(file: Path, directory: Path) -> dict[str, Any]:
    content = file.read_bytes()
    entry: dict[str, Any] = {
        "type": "file",
        "path": file.relative_to(directory).as_posix(),
        "size": len(content),
    }
    if not _is_large(file):
        return entry | {"oid": _git_id(content)}
    digest = _sha256(file)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()
    lfs = {"oid": digest, "size": len(content), "pointerSize": len(pointer)}
    return entry | {"oid": _git_id(pointer), "lfs": lfs}


def _is_large(file: Path) -> bool:
    return file.suffix in (".safetensors", ".parquet", ".bin")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
