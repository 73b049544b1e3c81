"""Hostile prompt files: each is read as what it is, or one line says what is wrong with it."""

import datetime
import gzip
import json
import os
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_prompt_files import download, download_error

from pipeline.core.errors import UserError
from pipeline.prompts.local import load_local_prompts
from pipeline.prompts.raw import to_raw_table

COLUMNS = {"prompt": "prompt", "source": "source", "cluster": "cluster"}
PROMPTS = ["How do I bake bread?", "Tell me of the sea."]
HEADER = b"prompt,source,cluster\n"
ROW = HEADER + b"How do I bake bread?,x,1\n"
BOTH = HEADER + b'How do I bake bread?,a,1\n"Tell me of the sea.",b,2\n'
JSON_ROW = '{"prompt": "a", "source": "b", "cluster": 1}\n'


def table(**changes: Any) -> pa.Table:
    return pa.table({"prompt": PROMPTS, "source": ["a", "b"], "cluster": [1, 2]} | changes)


def parquet(content: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, **options)
    return sink.getvalue().to_pybytes()


def twice(name: str) -> pa.Table:
    whole = table()
    return whole.append_column(name, whole[name])


def bomb() -> pa.Table:
    """Three megabytes of indices at most, all of them of one long text."""
    rows = 3_000_000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 40_000]))
    return pa.table({"prompt": text, "source": pa.repeat("s", rows), "cluster": pa.repeat(1, rows)})


def not_utf8_name() -> bytes:
    return parquet(table(caf_=[0, 0])).replace(b"caf_", b"caf\xe9")


def flipped(data: bytes) -> bytes:
    """Damaged in its pages and not in its footer."""
    return data[:40] + bytes(255 - byte for byte in data[40:120]) + data[120:]


def time(kind: pa.DataType, value: int = 1) -> pa.Array:
    return pa.array([value, value], pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


FAR = 2**62  # a time that Python's own type does not reach
TIMES = [
    time(pa.timestamp("us"), FAR),
    time(pa.timestamp("ns"), 1),
    time(pa.timestamp("s", "Nowhere/Atlantis")),
    time(pa.date32(), 2**31 - 1),
    time(pa.date64(), 86_400_000),
    time(pa.time64("ns")),
    time(pa.duration("ns"), FAR),
]
OTHER_TYPES = [
    *TIMES,
    pa.array([[1], [2]]),
    pa.array([{"a": 1}, {"a": 2}]),
    pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    pa.array([b"1", b"2"]),
    pa.array([b"1", b"2"], pa.binary(1)),
    pa.array([Decimal("1.00"), Decimal("2.00")]),
    pa.array([datetime.datetime(2020, 1, 1)] * 2).dictionary_encode(),
    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16] * 2, pa.binary(16))),
    pa.StructArray.from_arrays([pa.array([1, 2])] * 3000, [f"column {number}" for number in range(3000)]),
]
# a file's name, what is in it, and how the line about it starts
REFUSED: dict[str, tuple[str, bytes | Callable[[], bytes], str]] = {
    "gzip": ("p.csv", gzip.compress(ROW), "p.csv is compressed by gzip, not .csv: unpack it"),
    "zip": ("p.jsonl", b"PK\x03\x04" + bytes(50), "p.jsonl is a zip archive or a spreadsheet"),
    "UTF-16": ("p.csv", ROW.decode().encode("utf-16"), "p.csv is UTF-16 text, not .csv: convert it to UTF-8"),
    "UTF-16 without a mark": (
        "p.csv",
        ROW.decode().encode("utf-16-le"),
        "p.csv, line 3: 1 fields where the header has 3",
    ),
    "zeros": ("p.csv", bytes(1000), r"p.csv has no rows"),
    "a zero in the header": ("p.csv", b"prompt\0,source,cluster\na,b,1\n", "p.csv: column 'prompt' is missing"),
    "a lone quote": ("p.csv", HEADER + b'a "b" c,x,1\n"d" e,x,1\n', "p.csv, line 3: not CSV"),
    "an open quote": ("p.csv", ROW + b'"' + b"x,1\n" * 10_000, "p.csv, line "),
    "a header twice": ("p.csv", b"prompt,prompt,source,cluster\na,b,c,1\n", "p.csv: two columns are named 'prompt'"),
    "blank headers": ("p.csv", b",,,\na,b,c,1\n", "p.csv: column 'prompt' is missing (it has: , , ,)"),
    "a blank first line": ("p.csv", b"\n" + ROW, "p.csv, line 2: 3 fields where the header has 0"),
    "ragged rows": ("p.csv", ROW + b"a,b\n", "p.csv, line 3: 2 fields where the header has 3"),
    "a long field": ("p.csv", HEADER + b"x" * 10**7 + b",x,1\n", "p.csv, row 1: the prompt has 10000000 characters"),
    "a long name": ("p.csv", b"x" * 10**6 + b"," + ROW.replace(b"\n", b"\n0,", 1), "p.csv: unknown column 'xxx"),
    "many columns": ("p.csv", b"a," * 10_000 + b"b\n" + b"1," * 10_000 + b"2\n", "p.csv: column 'prompt' is missing"),
    "a terminal's escapes": (
        "p.csv",
        b"\x1b[2J\x1b]0;x\x07,b\n1,2\n",
        r"p.csv: column 'prompt' is missing (it has: \x1b",
    ),
    "a huge cluster": ("p.csv", HEADER + b"a,b," + b"9" * 10**6, "p.csv, row 1: the cluster is '9999"),
    "a cluster of letters": ("p.csv", HEADER + "a,b,²".encode(), r"p.csv, row 1: the cluster is '\xb2'"),
    "not a number": ("p.jsonl", JSON_ROW.replace("1", "NaN").encode(), "p.jsonl, row 1: the cluster is nan"),
    "infinity": ("p.jsonl", JSON_ROW.replace("1", "-Infinity").encode(), "p.jsonl, row 1: the cluster is -inf"),
    "true": ("p.jsonl", JSON_ROW.replace("1", "true").encode(), "p.jsonl, row 1: the cluster is True"),
    "too many digits": ("p.jsonl", JSON_ROW.replace("1", "1" * 5000).encode(), "p.jsonl, line 1: not JSON (Exceeds"),
    "an exponent": ("p.jsonl", JSON_ROW.replace("1", "1e999").encode(), "p.jsonl, row 1: the cluster is inf"),
    "beyond 64 bits": ("p.jsonl", JSON_ROW.replace("1", str(2**70)).encode(), "p.jsonl: key 'cluster' holds values of"),
    "a key twice": ("p.jsonl", b'{"prompt": "a", "prompt": "b"}', "p.jsonl, line 1: not JSON (a key stands twice)"),
    "half a pair": (
        "p.jsonl",
        (JSON_ROW + JSON_ROW.replace('"a"', r'"\ud800"')).encode(),
        "p.jsonl, line 2: 'prompt' holds half a surrogate pair",
    ),
    "half a pair in a name": ("p.jsonl", rb'{"\ud800": 1}', "p.jsonl: column 'prompt' is missing"),
    "deep": ("p.jsonl", JSON_ROW.replace("1", "[" * 900 + "]" * 900).encode(), "p.jsonl: "),
    "too deep": ("p.jsonl", JSON_ROW.replace("1", '{"a":' * 50_000).encode(), "p.jsonl, line 1: not JSON"),
    "a list of prompts": ("p.jsonl", b'[{"prompt": "a"}]', "p.jsonl, line 1: not a JSON object"),
    "prompts that are numbers": (
        "p.jsonl",
        JSON_ROW.replace('"a"', "7").encode(),
        "p.jsonl: column 'prompt' holds int64",
    ),
    "prompts that are lists": (
        "p.jsonl",
        JSON_ROW.replace('"a"', "[[]]").encode(),
        "p.jsonl: column 'prompt' holds list",
    ),
    "no prompts": ("p.parquet", lambda: parquet(table().slice(0, 0)), "p.parquet has no rows"),
    "no columns": ("p.parquet", lambda: parquet(pa.table({})), "p.parquet has no rows"),
    "a column twice": ("p.parquet", lambda: parquet(twice("prompt")), "p.parquet: two columns are named 'prompt'"),
    "a column inside another": (
        "p.parquet",
        lambda: parquet(pa.table({"x": [{"prompt": "a", "source": "b", "cluster": 1}]})),
        "p.parquet: column 'prompt' is missing",
    ),
    "numbers beyond 64 bits": (
        "p.parquet",
        lambda: parquet(table(cluster=pa.array([1, 2**64 - 1], pa.uint64()))),
        "p.parquet, row 2: the cluster is 18446744073709551615",
    ),
    "negative numbers": (
        "p.parquet",
        lambda: parquet(table(cluster=pa.array([-128, 1], pa.int8()))),
        "p.parquet, row 1:",
    ),
    "nothing but nulls": (
        "p.parquet",
        lambda: parquet(table(prompt=pa.nulls(2))),
        "p.parquet, row 1: the prompt is mis",
    ),
    "NaN": ("p.parquet", lambda: parquet(table(cluster=[1.0, float("nan")])), "p.parquet, row 2: the cluster is nan"),
    "a short footer": ("p.parquet", lambda: parquet(table())[:-9] + b"PAR1", "p.parquet is not a whole parquet file"),
    "encrypted": ("p.parquet", lambda: parquet(table())[:-4] + b"PARE", "p.parquet is not a whole parquet file"),
    "damaged pages": (
        "p.parquet",
        lambda: flipped(parquet(table(), compression="zstd")),
        "p.parquet is not a whole parq",
    ),
    "a name in Latin 1": ("p.parquet", not_utf8_name, "p.parquet is not a whole parquet file ("),
    "terabytes in kilobytes": (
        "p.parquet",
        lambda: parquet(bomb(), compression="zstd"),
        "p.parquet has 3,000,000 rows that unpack to 111.8 GB of prompts, more than",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_file_is_one_line(case: str, tmp_path: Path) -> None:
    name, content, expected = REFUSED[case]
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    line = download_error(tmp_path, name)
    assert line.startswith(expected)
    assert line.isprintable() and len(line) < 700


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("values", OTHER_TYPES, ids=lambda values: str(values.type)[:30])
def test_a_column_of_any_other_type_is_one_line(values: pa.Array, column: str, tmp_path: Path) -> None:
    pq.write_table(table(**{column: values}), tmp_path / "p.parquet")
    line = download_error(tmp_path, "p.parquet")
    assert line.startswith(f"p.parquet: column '{column}' holds ") and "convert it" in line
    assert len(line) < 300


# what is unusual and means what it says
READ: dict[str, tuple[str, bytes | Callable[[], bytes]]] = {
    "a mark of UTF-8": ("p.csv", b"\xef\xbb\xbf" + BOTH),
    "lines of old Macs": ("p.csv", BOTH.replace(b"\n", b"\r")),
    "lines of Windows": ("p.csv", BOTH.replace(b"\n", b"\r\n")),
    "blank lines": ("p.csv", BOTH.replace(b"\n", b"\n\n")),
    "a line break inside JSON": ("p.jsonl", b'{"prompt":"How do I bake bread?","source":"a","cluster":1}\r\n'
        b'{"cluster":2.0,"source":"b","prompt":"Tell me of the sea."}'),
    "large texts": ("p.parquet", lambda: parquet(table(prompt=pa.array(PROMPTS, pa.large_string())))),
    "views": ("p.parquet", lambda: parquet(table(prompt=pa.array(PROMPTS, pa.string_view())))),
    "categories": ("p.parquet", lambda: parquet(table(source=pa.array(["a", "b"]).dictionary_encode()))),
    "clusters as text": ("p.parquet", lambda: parquet(table(cluster=["1", "2"]))),
    "clusters as floats": ("p.parquet", lambda: parquet(table(cluster=[1.0, 2.0]))),
    "clusters of a byte": ("p.parquet", lambda: parquet(table(cluster=pa.array([1, 2], pa.uint8())))),
    "pages in many groups": ("p.parquet", lambda: parquet(table(), row_group_size=1)),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_an_unusual_file_is_read(case: str, tmp_path: Path) -> None:
    name, content = READ[case]
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    found = download(tmp_path, name)
    assert [(row["prompt"], row["source"], row["cluster"]) for row in found] == list(
        zip(PROMPTS, ["a", "b"], [1, 2], strict=True)
    )


@pytest.mark.parametrize("values", OTHER_TYPES, ids=lambda values: str(values.type)[:30])
def test_what_is_in_columns_that_nobody_asked_for_does_not_matter(values: pa.Array, tmp_path: Path) -> None:
    damaged = pa.array([b"caf\xe9", b""]).view(pa.string())
    names = {"prompt": "a.b", "source": "../x", "cluster": "c\nd"}  # and a name may look like anything
    columns = {name: table()[column] for column, name in names.items()}
    pq.write_table(
        pa.table(columns | {"a": [{"b": 1}] * 2, "other": values, "damaged": damaged}), tmp_path / "p.parquet"
    )
    found = download(tmp_path, "p.parquet", {"data.columns": names, "data.extra_columns": "drop"})
    assert [row["prompt"] for row in found] == PROMPTS


def test_keys_of_json_that_nobody_asked_for_may_hold_anything(tmp_path: Path) -> None:
    row = '{"prompt": "a", "source": "b", "cluster": 1, "x": %s, "\\ud800": 0}\n'
    (tmp_path / "p.jsonl").write_text("".join(row % value for value in ("1", '"a"', "[]", str(2**70), r'"\ud800"')))
    assert len(download(tmp_path, "p.jsonl", {"data.extra_columns": "drop"})) == 5
    assert download_error(tmp_path, "p.jsonl").startswith("p.jsonl: unknown column 'x'")


def test_a_parquet_file_that_ends_the_process_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet(table()))

    def abort(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch("pipeline.prompts.parquet._read", abort):
        line = download_error(tmp_path, "p.parquet")
    assert line.startswith(
        "p.parquet is not a whole parquet file (reading it ends with signal 9), or needs more memory"
    )


def not_a_file(folder: Path, kind: str) -> None:
    path = folder / "p.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device", "nothing"])
def test_what_is_not_a_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    not_a_file(tmp_path, kind)
    with pytest.raises(UserError, match=r"p\.csv is not a file: set data\.path"):
        load_local_prompts(tmp_path / "p.csv", COLUMNS.values())
    if kind != "nothing":  # DVC would open it, so params are not allowed to name it
        assert download_error(tmp_path, "p.csv").startswith("params.yaml: data.path = 'p.csv' is not allowed: it ")


def test_a_file_without_a_size_is_empty(tmp_path: Path) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs /proc")
    (tmp_path / "p.csv").symlink_to("/proc/self/status")
    with pytest.raises(UserError, match=r"p\.csv is empty"):
        load_local_prompts(tmp_path / "p.csv", COLUMNS.values())
    assert download_error(tmp_path, "p.csv").endswith("it is not on a disk but made up by the system")


def test_a_file_of_too_many_rows_or_bytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet(table()))
    (tmp_path / "p.csv").write_bytes(ROW)
    with mock.patch("pipeline.prompts.parquet.MAX_ROWS", 1):
        assert download_error(tmp_path, "p.parquet").startswith("p.parquet has 2 rows that")
    with mock.patch("pipeline.prompts.parquet.MAX_BYTES", 10):
        assert download_error(tmp_path, "p.parquet").startswith("p.parquet has 2 rows that")
    with mock.patch("pipeline.prompts.local.MAX_BYTES", 10):
        assert download_error(tmp_path, "p.csv").startswith("p.csv has more than 0 GB")


def test_harmless_prompts_may_have_clusters_of_any_kind_and_number(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(ROW)
    (tmp_path / "b.parquet").write_bytes(parquet(twice("cluster")))
    download(tmp_path, "p.csv", {"data.benign": "b.parquet"})
    (tmp_path / "b.parquet").write_bytes(parquet(table(prompt=TIMES[0])))
    line = download_error(tmp_path, "p.csv", {"data.benign": "b.parquet"})
    assert line.startswith("b.parquet: column 'prompt' holds timestamp[us], not text")


def is_read_or_refused(path: Path) -> None:
    try:
        found = to_raw_table(load_local_prompts(path, COLUMNS.values()), COLUMNS, 6, 50_000, "drop", path.name)
    except UserError as error:
        line = str(error)
        assert line.startswith((path.name, str(path)))
    else:
        assert found.num_rows > 0
        json.dumps(found.to_pylist(), ensure_ascii=False).encode()


FUZZ = settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
CELLS = st.one_of(st.text(max_size=20), st.sampled_from(['"', ",", "\r", "\0", "\ufeff", "1", "prompt"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prompt", "x"]), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@pytest.mark.slow
@given(
    data=st.one_of(st.binary(max_size=200), st.lists(CELLS, max_size=30).map(lambda cells: ",".join(cells).encode()))
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_any_bytes_are_read_or_refused(ending: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"p.{ending}"
    path.write_bytes((HEADER if ending == "csv" else b"") + data)
    is_read_or_refused(path)


@FUZZ
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, VALUES)), min_size=1, max_size=4))
def test_any_json_is_read_or_refused(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    is_read_or_refused(path)


WHOLE = parquet(table(extra=[[1], [2]]), compression="zstd")


@pytest.mark.slow
@FUZZ
@given(start=st.integers(0, len(WHOLE)), piece=st.binary(max_size=6), removed=st.integers(0, 6))
def test_a_parquet_file_with_a_damaged_piece_is_read_or_refused(
    start: int, piece: bytes, removed: int, tmp_path: Path
) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(WHOLE[:start] + piece + WHOLE[start + removed :])
    is_read_or_refused(path)
