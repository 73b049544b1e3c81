"""Read prompts from a .csv, .jsonl or .parquet file, and name the row of whatever is wrong."""

import csv
import io
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.errors import UserError, one_line
from pipeline.prompts.parquet import read_parquet

MAX_BYTES = 4 << 30  # of a file of text; every character of it is in memory several times
# what files begin with that have been given a wrong ending
_OTHER_KINDS = {
    b"PAR1": ("a parquet file", "give it the ending .parquet"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or export it as .csv"),
    b"\xff\xfe": ("UTF-16 text", "convert it to UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "convert it to UTF-8"),
}


def load_local_prompts(path: Path, columns: Collection[str], key: str = "data.path") -> pa.Table:
    """Read some of the `columns` of a prompt file. The file's ending tells its format.

    Columns of a .csv are strings; those of a .jsonl hold what JSON holds. The table also has the file's other columns,
    so that these can be reported, but they are not read and hold nulls.

    Raises: UserError when the file is missing, empty, not UTF-8, not what its ending says, or too large for memory. The
        message names `key`, the key of params.yaml that names the file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: a prompt file ends in {', '.join(_READERS)}: convert it or set {key}")
    if not path.is_file():
        raise UserError(f"{path} is not a file: set {key} to a {', '.join(_READERS)} file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: set {key} to a file with prompts")
    table = reader(path, columns)
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: set {key} to a file with prompts")
    return table


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES >> 30} GB: make it smaller")
    data = path.read_bytes()
    for beginning, (kind, remedy) in _OTHER_KINDS.items():
        if data.startswith(beginning):
            raise UserError(f"{path} is {kind}, not {path.suffix}: {remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8: convert the file to UTF-8"
        ) from None


def _read_csv(path: Path, columns: Collection[str]) -> pa.Table:
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
    arrays = [
        pa.array([row[place] for row in rows], pa.string()) if name in columns else pa.nulls(len(rows))
        for place, name in enumerate(header)
    ]
    return pa.table(arrays, header)


def _read_jsonl(path: Path, columns: Collection[str]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}): one object a line is expected") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object: one object a line is expected")
        if rows and row.keys() != rows[0].keys():
            raise UserError(f"{path}, line {number}: its keys differ from those of the first line: make them equal")
        rows.append(row)
        lines.append(number)
    names = [name for name in rows[0] if name in columns] if rows else []
    others = [_encodable(name) for name in rows[0] if name not in columns] if rows else []
    arrays = [_array([row[name] for row in rows], name, lines, path) for name in names]
    return pa.table([*arrays, *(pa.nulls(len(rows)) for _ in others)], [*names, *others])


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _encodable(name: str) -> str:
    """Return a name, which may hold half a surrogate pair, in a form that Arrow accepts."""
    return name.encode("utf-8", "backslashreplace").decode()


def _array(values: list[Any], name: str, lines: Sequence[int], path: Path) -> pa.Array:
    try:
        return pa.array(values)
    except MemoryError:  # which is one of Arrow's exceptions, too
        raise
    except UnicodeEncodeError:
        line = next(line for line, value in zip(lines, values, strict=True) if not _encodes(value))
        raise UserError(f"{path}, line {line}: '{name}' holds half a surrogate pair: mend or remove the line") from None
    except (pa.ArrowException, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: key '{name}' holds values of different types or sizes ({one_line(str(error), 200)}): "
            "make them one type"
        ) from None


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


_READERS: dict[str, Callable[[Path, Collection[str]], pa.Table]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": read_parquet,
}
