"""Prompt files: what is read of them, and that everything wrong is one line naming file, row and remedy."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import SMALL, run_stage, run_stage_error, sample_rows, write_csv, write_params

ROWS = sample_rows(500)[::5]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".csv":
        write_csv(path, rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


def download(folder: Path, name: str, changes: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    write_params(folder, SMALL | {"data.path": name} | (changes or {}))
    run_stage("download", folder)
    rows: list[dict[str, Any]] = pq.read_table(folder / "data/raw/prompts.parquet").to_pylist()
    return rows


def download_error(folder: Path, name: str, changes: dict[str, Any] | None = None) -> str:
    """The line of a download that must fail, and must leave an earlier output as it was."""
    earlier = folder / "data/raw/prompts.parquet"
    earlier.parent.mkdir(parents=True, exist_ok=True)
    earlier.write_bytes(b"earlier")
    write_params(folder, SMALL | {"data.path": name} | (changes or {}))
    before = {file.name: file.read_bytes() for file in earlier.parent.iterdir()}
    line = run_stage_error("download", folder)
    assert {file.name: file.read_bytes() for file in earlier.parent.iterdir()} == before
    return line


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_rows_of_the_file(ending: str, tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": 'a "quoted", line\nbroken <b>prompt</b> \u202e', "source": "x", "cluster": 5}]
    write(tmp_path / f"prompts.{ending}", rows)
    found = download(tmp_path, f"prompts.{ending}")
    assert [{key: row[key] for key in ("prompt", "source", "cluster")} for row in found] == rows
    assert len({row["prompt_id"] for row in found}) == len(rows)


def test_ids_do_not_change_when_rows_are_reordered(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", ROWS[::-1])
    in_order = download(tmp_path, "a.csv")
    reordered = download(tmp_path, "b.csv")
    assert sorted(in_order, key=str) == sorted(reordered, key=str)
    assert in_order != reordered


def test_a_column_map_renames_and_extra_columns_can_be_dropped(tmp_path: Path) -> None:
    rows = [{"text": row["prompt"], "from": row["source"], "label": row["cluster"], "note": "x"} for row in ROWS]
    write(tmp_path / "prompts.csv", rows)
    columns = {"data.columns": {"prompt": "text", "source": "from", "cluster": "label"}}
    found = download(tmp_path, "prompts.csv", columns | {"data.extra_columns": "drop"})
    assert [row["prompt"] for row in found] == [row["prompt"] for row in ROWS]
    line = download_error(tmp_path, "prompts.csv", columns)
    assert line.startswith("prompts.csv: unknown column 'note': remove it, or set data.extra_columns")


def changed(index: int, **change: Any) -> list[dict[str, Any]]:
    return [row | change if number == index else row for number, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("p.csv", [{"prompt": "a", "cluster": 1}], "p.csv: column 'source' is missing (it has: prompt, cluster)"),
        ("p.csv", changed(3, cluster="three"), "p.csv, row 4: the cluster is 'three', not an integer in 0..5"),
        ("p.jsonl", changed(3, cluster=6), "p.jsonl, row 4: the cluster is 6, not an integer in 0..5"),
        ("p.jsonl", changed(3, cluster=1.5), "p.jsonl, row 4: the cluster is 1.5, not an integer"),
        ("p.jsonl", changed(3, cluster=None), "p.jsonl, row 4: the cluster is missing, not an integer"),
        ("p.parquet", changed(3, prompt=None), "p.parquet, row 4: the prompt is missing, not text"),
        ("p.parquet", changed(3, source=" "), "p.parquet, row 4: the source is ' ', not a name"),
        ("p.csv", changed(3, prompt="\0\0"), r"p.csv, row 4: the prompt '\x00\x00' holds only control characters"),
        ("p.csv", changed(3, prompt="\x07\x1b\u202e"), "p.csv, row 4: the prompt '"),
        ("p.csv", changed(3, prompt="\x1c" * 20), "p.csv, row 4: the prompt '"),
        ("p.csv", changed(3, cluster="1" * 5000), "p.csv, row 4: the cluster is '1111"),
        ("p.csv", changed(3, source="x" * 201), "p.csv, row 4: the source has 201 characters, more than 200"),
        ("p.csv", changed(3, source="a\nb"), r"p.csv, row 4: the source 'a\nb' holds control characters"),
        ("p.parquet", changed(3, source="\x1b[2J"), r"p.parquet, row 4: the source '\x1b[2J' holds control"),
        ("p.csv", changed(3, prompt="x" * 1_000_000), "p.csv, row 4: the prompt has 1000000 characters, more than"),
    ],
)
def test_a_bad_row_is_one_line(name: str, rows: list[dict[str, Any]], expected: str, tmp_path: Path) -> None:
    write(tmp_path / name, rows)
    assert download_error(tmp_path, name).startswith(expected)


GOOD_CSV = b"prompt,source,cluster\nhello,x,1\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.csv", b"", "p.csv is empty"),
        ("p.csv", b"prompt,source,cluster\n", "p.csv has no rows"),
        ("p.csv", b"\xef\xbb\xbf", "p.csv has no rows"),
        ("p.jsonl", b'{"prompt": "a", "source": "b", "cluster": ' + b"9" * 30 + b"}\n", "p.jsonl: key 'cluster' holds"),
        ("p.jsonl", b"[" * 100_000, "p.jsonl, line 1: not JSON"),
        ("p.csv", GOOD_CSV + b"caf\xe9,x,1\n", "p.csv, line 3: byte 0xe9 is not UTF-8: convert"),
        ("p.csv", GOOD_CSV + b"a,b,c,d\n", "p.csv, line 3: 4 fields where the header has 3"),
        ("p.csv", GOOD_CSV + b'"open,x,1\n', "p.csv, line 3: not CSV"),
        ("p.csv", b"PAR1" + b"\0" * 40, "p.csv is a parquet file, not .csv"),
        ("p.parquet", GOOD_CSV, "p.parquet is not a whole parquet file"),
        ("p.jsonl", GOOD_CSV, "p.jsonl, line 1: not JSON"),
        ("p.jsonl", b'{"prompt": "a", "source": "b", "cluster": 1}\n[1]\n', "p.jsonl, line 2: not a JSON object"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', "p.jsonl, line 2: its keys differ"),
        (
            "p.jsonl",
            b'{"prompt": "a", "cluster": 1}\n{"prompt": "b", "cluster": "2"}\n',
            "p.jsonl: key 'cluster' holds",
        ),
        ("p.txt", GOOD_CSV, "p.txt: a prompt file ends in .csv, .jsonl, .parquet"),
    ],
)
def test_a_bad_file_is_one_line(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert download_error(tmp_path, name).startswith(expected)


def test_bytes_that_are_not_utf8_inside_a_parquet_file(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    broken = pa.array([row["prompt"].encode() for row in ROWS[:-1]] + [b"caf\xe9"]).view(pa.string())
    pq.write_table(table.set_column(0, "prompt", broken), tmp_path / "p.parquet")
    line = download_error(tmp_path, "p.parquet")
    assert line == f"p.parquet, row {len(ROWS)}: column 'prompt' is not UTF-8: convert it to UTF-8"


def test_a_missing_file_and_a_cut_off_one_are_one_line(tmp_path: Path) -> None:
    assert download_error(tmp_path, "absent.csv").startswith("absent.csv is not a file: set data.path")
    write(tmp_path / "p.parquet", ROWS)
    whole = (tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(whole[: len(whole) // 2])
    assert download_error(tmp_path, "p.parquet").startswith("p.parquet is not a whole parquet file")


def test_harmless_prompts_are_read_whatever_other_columns_they_have(tmp_path: Path) -> None:
    write(tmp_path / "prompts.csv", ROWS)
    write(
        tmp_path / "harmless.csv",
        [{"prompt": f"How do I bake bread {n}?", "source": "s", "cluster": 7} for n in (1, 2)],
    )
    download(tmp_path, "prompts.csv", {"data.benign": "harmless.csv"})
    found = pq.read_table(tmp_path / "data/raw/benign.parquet")
    assert found.column_names == ["prompt_id", "prompt", "source"] and found.num_rows == 2
    line = download_error(tmp_path, "prompts.csv", {"data.benign": "absent.csv"})
    assert line.startswith("absent.csv is not a file: set data.benign to")
    write(tmp_path / "harmless.csv", [{"prompt": "How do I bake bread?"}])
    line = download_error(tmp_path, "prompts.csv", {"data.benign": "harmless.csv"})
    assert line.startswith("harmless.csv: column 'source' is missing")
