"""Turn a source's own table into the one that every later stage reads: prompt_id, prompt, source, cluster."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from pipeline.core.errors import UserError, one_line

MAX_SOURCE_CHARS = 200  # sources are names: of rows in tables, of settings in metrics
RAW_SCHEMA = pa.schema(
    [("prompt_id", pa.string()), ("prompt", pa.string()), ("source", pa.string()), ("cluster", pa.int64())]
)


def to_raw_table(
    table: pa.Table,
    columns: Mapping[str, str],
    clusters: int,
    max_prompt_chars: int,
    extra_columns: Literal["refuse", "drop"],
    origin: str,
) -> pa.Table:
    """Check a source's rows and give them ids.

    Args:
        table: the source's rows, with its own column names and types.
        columns: the source's column for each of `prompt`, `source` and `cluster`.
        clusters: how many clusters there are; a cluster is an integer in 0..clusters-1.
        max_prompt_chars: a longer prompt is an error.
        extra_columns: what to do with columns that `columns` does not name.
        origin: what messages call the source.

    Returns: a table of RAW_SCHEMA in the order of the rows.
    Raises: UserError that names the origin, the row (from 1) and the column.
    """
    _check_columns(table.column_names, columns, extra_columns, origin)
    if table.num_rows == 0:
        raise UserError(f"{origin} has no rows: choose another source of prompts")
    values = {name: _values(table.column(column), name, column, origin) for name, column in columns.items()}
    prompts = [_prompt(value, max_prompt_chars, f"{origin}, row {row}") for row, value in _rows(values["prompt"])]
    sources = [_source(value, f"{origin}, row {row}") for row, value in _rows(values["source"])]
    labels = [_cluster(value, clusters, f"{origin}, row {row}") for row, value in _rows(values["cluster"])]
    ids = prompt_ids(prompts, sources, labels)
    return pa.table([ids, prompts, sources, labels], schema=RAW_SCHEMA)


def prompt_ids(prompts: list[str], sources: list[str], clusters: list[int]) -> list[str]:
    """Return ids that depend on the rows' content alone, so that reordering the rows changes none of them.

    An id is a hash of the text. Further rows with the same text, ordered by cluster and source, get -1, -2, ...
    appended.
    """
    order = sorted(range(len(prompts)), key=lambda row: (clusters[row], sources[row]))
    seen: Counter[str] = Counter()
    ids = [""] * len(prompts)
    for row in order:
        digest = hashlib.sha256(prompts[row].encode()).hexdigest()[:16]
        ids[row] = f"{digest}-{seen[digest]}" if seen[digest] else digest
        seen[digest] += 1
    return ids


def _values(column: pa.ChunkedArray, what: str, name: str, origin: str) -> list[Any]:
    """Return a column's values as Python objects. Refuse times, lists and the like: Python cannot hold all of them."""
    if not may_hold(what, column.type):
        wanted = "integers" if what == "cluster" else "text"
        raise UserError(
            f"{origin}: column '{_short(name)}' holds {_short(str(column.type))}, not {wanted}: convert it, or set "
            f"data.columns.{what} to another column"
        )
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        row = next(row for row, value in enumerate(column, start=1) if not _decodes(value))
        raise UserError(f"{origin}, row {row}: column '{_short(name)}' is not UTF-8: convert it to UTF-8") from None


def may_hold(what: str, kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type can be a `prompt`, `source` or `cluster`.

    Null can, so that the row of a missing value can be named.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        return True
    return what == "cluster" and (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _decodes(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _rows(values: list[Any]) -> Any:
    return enumerate(values, start=1)


def _check_columns(present: list[str], columns: Mapping[str, str], extra: str, origin: str) -> None:
    wanted = list(columns.values())
    missing = [column for column in wanted if column not in present]
    if missing:
        raise UserError(
            f"{origin}: column '{_short(missing[0])}' is missing (it has: {one_line(', '.join(present), 200)}): "
            "set data.columns to its names"
        )
    repeated = [column for column in wanted if present.count(column) > 1]
    if repeated:
        raise UserError(f"{origin}: two columns are named '{_short(repeated[0])}': rename or remove one")
    others = [column for column in present if column not in wanted]
    if others and extra == "refuse":
        raise UserError(
            f"{origin}: unknown column '{_short(others[0])}': remove it, or set data.extra_columns to drop to leave "
            "out all but the columns that data.columns names"
        )


def _prompt(value: Any, max_chars: int, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: the prompt is {_shown(value)}, not text: mend or remove the row")
    if len(value) > max_chars:
        raise UserError(
            f"{where}: the prompt has {len(value)} characters, more than data.max_prompt_chars = {max_chars}: "
            "shorten it, or raise the key if that is no mistake"
        )
    # blank prompts are for the filter to count; one of control characters alone is a damaged row
    visible = [character for character in value if character not in " \t\n\r"]
    if visible and all(unicodedata.category(character).startswith("C") for character in visible):
        raise UserError(f"{where}: the prompt {_shown(value)} holds only control characters: mend or remove the row")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: the prompt holds half a surrogate pair: mend or remove the row") from None
    return value


def _source(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: the source is {_shown(value)}, not a name: mend or remove the row")
    if len(value) > MAX_SOURCE_CHARS:
        raise UserError(
            f"{where}: the source has {len(value)} characters, more than {MAX_SOURCE_CHARS}: a name is wanted, "
            "check which column data.columns.source names"
        )
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise UserError(f"{where}: the source {_shown(value)} holds control characters: mend or remove the row")
    return value


def _cluster(value: Any, clusters: int, where: str) -> int:
    number = value
    if isinstance(value, str):
        number = int(value) if value.strip().isdecimal() and len(value) < 10 else None
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < clusters:
        raise UserError(
            f"{where}: the cluster is {_shown(value)}, not an integer in 0..{clusters - 1}: mend or remove the row, "
            "or list the names of all clusters in data.clusters"
        )
    return number


def _shown(value: Any) -> str:
    return "missing" if value is None else ascii(value)[:60]


def _short(name: str) -> str:
    return one_line(name, 80)
