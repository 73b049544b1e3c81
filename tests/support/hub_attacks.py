"""Attacks of a hub, as data: what it answers, or what becomes of the cache, and a part of the line that is expected."""

import json
from dataclasses import dataclass
from typing import Any

from hostile_hub import COMMIT, Answer, entry, http

CONFIG, WEIGHTS = b'{"model_type": "qwen3"}', bytes(range(256)) * 64
MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
HALF = len(WEIGHTS) // 2
ROWS = b"prompt,source,cluster\nA prompt,made,1\n"
SECRET = b"prompt,source,cluster\nA secret,made,1\n"
NOT_A_HUB = "does not answer like a Hugging Face hub"
OUTSIDE = "../../../../secret.csv"  # from a blob or a snapshot's file, a file outside the cache


def tree(*entries: Any, **headers: Any) -> Answer:
    return Answer(http(json.dumps(entries).encode(), **headers))


def changed(**changes: Any) -> Answer:
    """The honest list with changes to the entry of config.json."""
    return tree(entry("config.json", CONFIG, **changes), entry("model.safetensors", WEIGHTS))


def lfs(**changes: Any) -> Answer:
    honest = entry("model.safetensors", WEIGHTS)
    return tree(entry("config.json", CONFIG), honest | {"lfs": honest["lfs"] | changes})


def with_file(path: str) -> Answer:
    return tree(entry("config.json", CONFIG), entry("model.safetensors", WEIGHTS), entry(path, SECRET))


def redirect(target: str, status: str = "302 Found") -> Answer:
    return Answer(http(status=status, Location=target))


JSON_ANSWERS = {
    "empty": Answer(http()),
    "web page": Answer(http(b"<html>Welcome to the hotel's network</html>", Content_Type="text/html")),
    "null": Answer(http(b"null")),
    "number": Answer(http(b"1")),
    "NaN": Answer(http(b"NaN")),
    "not UTF-8": Answer(http(b'{"sha": "\xff\xfe"}')),
    "half": Answer(http(b'[{"sha": "01234')),
    "deep": Answer(http(b"[" * 500_000)),
    "deep mapping": Answer(http(b'{"sha":' * 100_000)),
    "huge number": Answer(http(b"9" * 100_000)),
    "too much": Answer(http(b" " * (2 << 20))),
    "endless": Answer(http(length=False), "flood", b" "),
    "gzip": Answer(http(b"\x1f\x8b\x08\x00", Content_Encoding="gzip")),
    "bad chunks": Answer(http(b"zz\r\n{}\r\n", length=False, Transfer_Encoding="chunked")),
    "endless chunk": Answer(http(b"ffffffffffffffff\r\n", length=False, Transfer_Encoding="chunked"), "flood"),
    "two lengths": Answer(http(b"{}", content_length="77")),
    "negative length": Answer(http(b"{}", length=False, Content_Length="-2")),
    "length that is no number": Answer(http(b"{}", length=False, Content_Length="two")),
    "no HTTP": Answer(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "no status": Answer(b"HTTP/1.1\r\n\r\n"),
    "status 99999": Answer(http(b"{}", "99999 OK")),
    "status 204": Answer(http(status="204 No Content")),
    "status 206": Answer(http(b"{}", "206 Partial Content")),
    "status 299": Answer(http(b"{}", "299 Fine")),
    "status 304": Answer(http(status="304 Not Modified")),
    "status 600": Answer(http(b"{}", "600 Odd")),
    "long header": Answer(http(b"{}", X="x" * 100_000)),
    "many headers": Answer(b"HTTP/1.1 200 OK\r\n", "flood", b"X: y\r\n"),
    "endless header": Answer(b"HTTP/1.1 200 OK\r\nX: ", "flood"),
    "NUL in a header": Answer(http(b"{}", X="a\0b")),
    "header that is not UTF-8": Answer(http(b"{}", X="\udcff")),
    "loop": redirect("?again"),
    "redirect to itself": redirect(""),
    "redirect without a place": Answer(http(status="302 Found")),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect to ftp": redirect("ftp://OTHER/x"),
    "redirect to nothing": redirect("http://"),
    "redirect to no port": redirect("http://127.0.0.1:99999999/"),
    "redirect to no address": redirect("http://[::1"),
    "redirect that is not UTF-8": redirect("\udcff\udcfe"),
}
WITH_LINES = {  # another line than that it is no hub
    "status 418": (Answer(http(status="418 Teapot")), "HTTP 418"),
    "status 500": (Answer(http(status="500 Oops", X_Error_Message="\x1b[31mred")), "HTTP 500"),
    "drip of a header": (Answer(b"HTTP/1.1 200 OK\r\nX: ", "drip"), "is too slow"),
    "drip of a body": (Answer(http(b"{", length=False), "drip", b" "), "is too slow"),
    "drip of interim answers": (Answer(b"", "drip", b"HTTP/1.1 100 Continue\r\n\r\n"), "is too slow"),
    "silence": (Answer(b"", "hang"), "cannot be reached"),
    "goodbye": (Answer(b""), "broke off"),
    "half a body": (Answer(http(b"{", length=False, Content_Length="99")), "broke off"),
}
REVISIONS = {
    "no commit": b"{}",
    "null commit": b'{"sha": null}',
    "numeric commit": b'{"sha": 1}',
    "short commit": b'{"sha": "0123456789abcdef"}',
    "capital commit": b'{"sha": "%s"}' % COMMIT.upper().encode(),
    "commit that leads out": b'{"sha": "../../../../../../../../secrets/0123456789a"}',
    "commit and a line": b'{"sha": "%s\\n"}' % COMMIT.encode(),
    "list": b'[{"sha": "%s"}]' % COMMIT.encode(),
}
TREES = {
    "mapping": Answer(http(b'{"files": []}')),
    "texts": tree("config.json"),
    "lists": tree([["config.json", 1]]),
    "size as text": changed(size="23"),
    "size of a half": changed(size=22.5),
    "size true": changed(size=True),
    "size null": changed(size=None),
    "negative size": changed(size=-1),
    "huge size": changed(size=1 << 70),
    "no size": changed(size=...),
    "no path": changed(path=...),
    "path as number": changed(path=1),
    "no digest": changed(oid=...),
    "digest null": changed(oid=None),
    "digest that leads out": changed(oid=OUTSIDE),
    "digest too short": changed(oid="0" * 39),
    "odd type": changed(type="symlink"),
    "large digest that leads out": lfs(oid=OUTSIDE),
    "large digest null": lfs(oid=None),
    "large size differs": lfs(size=1),
    "large as list": changed(lfs=[1]),
    "twice": tree(entry("config.json", CONFIG), entry("config.json", ROWS)),
    "next page on another host": tree(Link='<OTHER/api/models/lab/x/tree/y?cursor=2>; rel="next"'),
    "next page by ftp": tree(Link='<ftp://HUB/x>; rel="next"'),
    "next page nowhere": tree(Link='<http://[::1>; rel="next"'),
    "endless pages": tree(Link='<?cursor=2>; rel="next"'),
    "the same page again": tree(entry("a", b""), Link='<?cursor=2>; rel="next"'),
    **{
        f"path {ascii(path)[:30]}": with_file(path)
        for path in [
            OUTSIDE,
            "/secret.csv",
            "a/../../secret.csv",
            "..",
            "./a",
            "a//b",
            "a/",
            "",
            "..\\secret.csv",
            "C:\\secret.csv",
            "a\nb",
            "a\0b",
            "a\x1b[31m",
            "\ud800",
            "a" * 300,
            "a/" * 2000 + "a",
        ]
    },
}
LINKED: dict[str, Any] = {"X_Linked_Etag": f'"{OUTSIDE}"', "X_Linked_Size": "-5", "X_Repo_Commit": OUTSIDE}
FILES = {
    "ETag that leads out": (Answer(http(WEIGHTS, ETag=f'"{OUTSIDE}"')), ""),
    "linked ETag that leads out": (Answer(http(WEIGHTS, **LINKED)), ""),
    "no headers of a hub": (Answer(http(WEIGHTS, length=False)), ""),
    "chunk storage elsewhere": (Answer(http(WEIGHTS, X_Xet_Hash="a" * 64, X_Xet_Refresh_Route="OTHER/xet-token")), ""),
    "redirect to another host": (redirect("OTHER/lab/honest/resolve/x/model.safetensors"), ""),
    "redirect out of reach": (redirect("http://127.0.0.1:1/x"), "cannot be reached"),
    "endless": (Answer(http(length=False), "flood"), "too short or too long"),
    "endless after the file": (Answer(http(WEIGHTS, length=False), "flood"), "too short or too long"),
    "more than said": (Answer(http(WEIGHTS + b"x")), "too short or too long"),
    "less than said": (Answer(http(WEIGHTS[1:])), "too short or too long"),
    "less without a length": (Answer(http(WEIGHTS[1:], length=False)), "too short or too long"),
    "nothing": (Answer(http()), "too short or too long"),
    "other bytes": (Answer(http(WEIGHTS[::-1])), "differs in checksum"),
    "web page": (Answer(http(b"<html>".ljust(len(WEIGHTS)))), "differs in checksum"),
    "drip": (Answer(http(length=False), "drip"), "is too slow"),
    "drip of chunks": (Answer(http(length=False, Transfer_Encoding="chunked"), "drip", b"1\r\nx\r\n"), "is too slow"),
    "drip of a header": (Answer(b"HTTP/1.1 200 OK\r\nX: ", "drip"), "cannot be reached"),
    "silence": (Answer(b"", "hang"), "cannot be reached"),
    "gzip": (Answer(http(WEIGHTS, Content_Encoding="gzip")), NOT_A_HUB),
    "unasked part": (Answer(http(WEIGHTS, "206 Partial", Content_Range=f"bytes 0-1/{len(WEIGHTS)}")), NOT_A_HUB),
    "status 204": (Answer(http(status="204 No Content")), NOT_A_HUB),
    "status 416": (Answer(http(status="416 Range")), "HTTP 416"),
    "status 404": (Answer(http(status="404 Not Found")), "HTTP 404"),
    "status 503": (Answer(http(status="503 Busy", Retry_After="999999999")), "HTTP 503"),
    "loop": (redirect("?again"), NOT_A_HUB),
}
CUT = Answer(http(WEIGHTS[:HALF], length=False, Content_Length=str(len(WEIGHTS))))
PARTS = {  # what follows half a file and a connection that broke off
    "no range": http(WEIGHTS[HALF:], "206 Partial"),
    "another range": http(WEIGHTS[:HALF], "206 Partial", Content_Range=f"bytes 0-{HALF - 1}/{len(WEIGHTS)}"),
    "range of more": http(WEIGHTS[HALF:], "206 Partial", Content_Range=f"bytes {HALF}-99999/100000"),
    "range that is no number": http(WEIGHTS[HALF:], "206 Partial", Content_Range="bytes x-y/z"),
}
CARDS = {
    "absolute path": "SECRETS/secret.csv",
    "path that leads out": OUTSIDE,
    "path through a folder": f"data/../{OUTSIDE}",
    "pattern that leads out": "../../../../*.csv",
    "pattern anywhere": "/**/secret.csv",
    "http": "OTHER/lab/secrets/resolve/x/secret.csv",
    "hf": "hf://datasets/lab/secrets/secret.csv",
    "s3": "s3://lab/secret.csv",
    "zip": "zip://secret.csv::OTHER/lab/secrets/resolve/x/a.zip",
    "file": "file://SECRETS/secret.csv",
    "home": "~/secret.csv",
    "data address": "data:text/csv,prompt",
    "file without slashes": "file:secret.csv",
    "through a link": "all.csv::SECRETS/secret.csv",
    "backslashes": "..\\..\\secret.csv",
    "NUL": '"a\\0.csv"',
    "half a surrogate pair": '"\\uD800.csv"',
}
ODD_CARDS = {
    "configs as text": "configs: all.csv",
    "configs of texts": "configs: [all.csv]",
    "two configs": "configs: [{config_name: a, data_files: all.csv}, {config_name: b, data_files: all.csv}]",
    "data_dir that leads out": "configs: [{config_name: a, data_dir: ../../../..}]",
    "data_dir that is not there": "configs: [{config_name: a, data_dir: nowhere}]",
    "pattern that fits nothing": "configs: [{config_name: a, data_files: x*.csv}]",
    "one split that fits nothing": "configs: [{config_name: a, data_files: [{split: train, path: all.csv}, "
    "{split: test, path: x*.csv}]}]",
    "a split twice": "configs: [{config_name: a, data_files: [{split: train, path: all.csv}, "
    "{split: train, path: all.csv}]}]",
    "data_dir as list": "configs: [{config_name: a, data_dir: [x]}]",
    "data_files null": "configs: [{config_name: a, data_files: {}}]",
    "nested data_files": "configs: [{config_name: a, data_files: [[all.csv]]}]",
    "split as list": "configs: [{config_name: a, data_files: [{split: [x], path: all.csv}]}]",
    "split with escapes": 'configs: [{config_name: a, data_files: [{split: "\\e[31m", path: all.csv}]}]',
    "no YAML": "configs: [",
    "deep YAML": "configs: " + "[" * 5000,
    "code": "configs: !!python/object/apply:os.system [touch PWNED]",
    "bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "configs: [{config_name: a, data_files: *j}]",
    "itself": "configs: &a [*a]",
}
IGNORED_CARDS = {  # what a README.md may say that is not listened to
    "config without a name": "configs: [{data_files: all.csv}]",
    "config with the name of a folder": "configs: [{config_name: ../../x, data_files: all.csv}]",
    "options": "configs: [{config_name: a, data_files: all.csv, sep: x, skiprows: 9, names: [a], encoding: rot13}]",
    "types": "configs: [{config_name: a, data_files: all.csv, features: [{name: prompt, dtype: int64}]}]",
    "features": "dataset_info: {features: [{name: prompt, dtype: int64}]}",
    "loading script": "configs: [{config_name: a, data_files: all.csv, script: load.py}]",
}

CACHES = {  # what becomes a link to the same outside the cache, after an honest run
    "file": "snapshots/{commit}/config.json",
    "snapshot": "snapshots/{commit}",
    "snapshots": "snapshots",
    "blob": "blobs/{digest}",
    "blobs": "blobs",
    "list": "trees/{commit}.json",
    "lists": "trees",
}
LISTS = {  # what becomes of the list that the cache keeps, after an honest run
    "no JSON": "{",
    "a list": "[]",
    "another format": '{"format_version": 2, "files": {}}',
    "no files": '{"format_version": 1, "files": {}}',
    "a path that leads out": json.dumps({"format_version": 1, "files": {OUTSIDE: {"size": 1, "blob_id": "0" * 40}}}),
    "a digest that leads out": json.dumps(
        {"format_version": 1, "files": {"config.json": {"size": 1, "blob_id": OUTSIDE}}}
    ),
}


@dataclass(frozen=True)
class Attack:
    """What is attacked, with which answers, and a part of the line that is expected (none: the run succeeds)."""

    id: str
    stage: str  # revision, tree or a file
    answers: tuple[Answer, ...]
    part: str
    card: str = ""  # for a dataset


ATTACKS = [
    *(
        Attack(f"{stage}: {id}", stage, (a,), NOT_A_HUB)
        for stage in ("revision", "tree")
        for id, a in JSON_ANSWERS.items()
    ),
    *(Attack(f"{stage}: {id}", stage, (a,), p) for stage in ("revision", "tree") for id, (a, p) in WITH_LINES.items()),
    *(Attack(f"revision: {id}", "revision", (Answer(http(body)),), NOT_A_HUB) for id, body in REVISIONS.items()),
    *(Attack(f"tree: {id}", "tree", (answer,), NOT_A_HUB) for id, answer in TREES.items()),
    Attack("tree: no room for it", "tree", (changed(size=1 << 49),), "needs 562950.0 GB"),
    Attack("tree: no file that is read", "tree", (tree(entry("a.bin", b"")),), "has none of the files"),
    *(Attack(f"file: {id}", "model.safetensors", (answer,), part) for id, (answer, part) in FILES.items()),
    *(Attack(f"rest of a file: {id}", "model.safetensors", (CUT, Answer(a)), NOT_A_HUB) for id, a in PARTS.items()),
    Attack("rest of a file: all of it", "model.safetensors", (CUT, Answer(http(WEIGHTS))), ""),
    *(
        Attack(
            f"card: {id}", "", (), "which is none of its files", f"configs: [{{config_name: a, data_files: {path}}}]"
        )
        for id, path in CARDS.items()
    ),
    Attack(
        "card: not there", "", (), "Unable to find 'other.csv'", "configs: [{config_name: a, data_files: other.csv}]"
    ),
    *(Attack(f"card: {id}", "", (), "is not a table", card) for id, card in ODD_CARDS.items()),
    *(Attack(f"card: {id}", "", (), "", card) for id, card in IGNORED_CARDS.items()),
]
