"""Read and write the pipeline's files: whole or not at all, and the same bytes every time."""

import csv
import errno
import glob
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import FileError
from pipeline.core.system_errors import NOTE, system_line
from pipeline.core.text import labels, visible

METRIC_DECIMALS = 4
LONGEST_NAME = 300  # of what metrics are of: more than a file's name can have, so never that of a point or variant
_SMALLER = "\u2039"  # for `<`, which it looks like
# what makes a spreadsheet take a text for a formula; where cells end at semicolons, also after one
_FORMULA = re.compile(r"(?:^|(?<=;))\s*(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` if the block succeeds, else delete it.

    A reader never sees half a file. Nothing is written in place, since DVC hard-links outputs to its cache.
    Temporary files that a killed process left of an earlier attempt are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_running(left.name.split(".")[-2]):
            _remove(left)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        error.add_note(f"{NOTE}{path}")
        raise
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # which is not what is to be told of a disk that has become read-only
        temporary.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    """Return whether a process with this id runs on this machine, as far as that can be known."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON. Refuse NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def write_metrics(path: Path, metrics: Any) -> None:
    """Write a metrics file: numbers rounded to 4 decimals, NaN as null, and no invisible characters in texts.

    `dvc metrics` prints names, such as those of sources, to terminals.
    """
    write_json(path, _rounded(metrics))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        names = labels(map(str, value), LONGEST_NAME)
        return {name: _rounded(item) for name, item in zip(names, value.values(), strict=True)}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, METRIC_DECIMALS) if value == value else None
    return visible(value) if isinstance(value, str) else value


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a .csv with a header, for `dvc plots`.

    DVC puts the texts into a script of its page, and people open the file with spreadsheets. So each text becomes one
    visible line without `<`, which no program mistakes for a formula.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(visible(value).split()).replace("<", _SMALLER)
    return _FORMULA.sub("'", line)


def read_json(path: Path, remedy: str = "make it again") -> Any:
    """Read a JSON file. Raise FileError with the remedy when it is missing or not JSON."""
    _check_is_file(path, remedy)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5000 digits, nested too deeply
        raise FileError(f"{path} is not JSON ({error})", remedy) from None


def damaged(path: Path, error: Exception, remedy: str = "make it again") -> Exception:
    """Return what to raise where reading a file raised `error`: the error itself if the operating system raised it."""
    if path.exists() and not os.access(path, os.R_OK):  # which safetensors does not say
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return error if system_line(error) else FileError(f"{path} is missing or damaged ({error})", remedy)


def _check_is_file(path: Path, remedy: str) -> None:
    """Raise FileError when there is no such file, or when reading might block, as from a pipe."""
    if not path.exists():
        raise FileError(f"{path} is missing", remedy)
    if not path.is_file():
        raise FileError(f"{path} is not a regular file", remedy)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file of the pipeline's own. Raise FileError when it is missing or damaged."""
    _check_is_file(path, "make it again")
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None):  # the system's word, such as on permissions; pyarrow's own errors have none
            raise
        raise FileError(f"{path} is damaged ({error})") from None


def sha256_of(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """Return the sha256 of a file in hex. `progress` is called with the number of bytes of each piece read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
            if progress:
                progress(len(piece))
    return digest.hexdigest()
