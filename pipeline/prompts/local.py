"""Prompts from a file: .csv, .jsonl or .parquet, read whole, with the row of whatever is wrong."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError


def load_local_prompts(path: Path, key: str = "data.path") -> pa.Table:
    """Read a prompt file as a table with the file's own columns; the file's ending tells its format.

    Columns of a .csv are strings, those of a .jsonl hold what JSON holds. Raise UserError when the file is
    missing, empty, not UTF-8, or not what its ending says; `key` of params.yaml is what names the file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: a prompt file ends in {', '.join(_READERS)}: convert it or set {key}")
    if not path.is_file():
        raise UserError(f"{path} is not a file: set {key} to a {', '.join(_READERS)} file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: set {key} to a file with prompts")
    table = reader(path)
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: set {key} to a file with prompts")
    return table


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a whole parquet file ({error}): check its ending or fetch it again") from None


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith(b"PAR1"):
        raise UserError(f"{path} is a parquet file, not {path.suffix}: give it the ending .parquet")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8: convert the file to UTF-8"
        ) from None


def _read_csv(path: Path) -> pa.Table:
    text = _read_text(path)
    csv.field_size_limit(max(len(text), 1))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}: "
                    "quote fields that hold commas, and check that it is a .csv file"
                )
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error}): mend the line") from None
    if len(set(header)) < len(header):
        raise UserError(f"{path}: the header names a column twice: rename one")
    return pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [[]] * len(header), header)


def _read_jsonl(path: Path) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}): one object a line is expected") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object: one object a line is expected")
        if rows and row.keys() != rows[0].keys():
            raise UserError(f"{path}, line {number}: its keys differ from those of the first line: make them equal")
        rows.append(row)
    try:
        return pa.Table.from_pylist(rows)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise UserError(
            f"{path}: a key holds values of different types or sizes ({error}): make them one type"
        ) from None


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
