"""Read prompts from a parquet file, which may unpack to a thousand or a million times its size."""

import os
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import UserError, one_line
from pipeline.prompts.raw import may_hold

MAX_ROWS = 10_000_000
MAX_BYTES = 4 << 30  # of text in the columns that are read


def read_parquet(path: Path, columns: Collection[str]) -> pa.Table:
    """Read those of the `columns` that hold text or numbers. Texts become dictionaries of the different ones.

    Other columns, and names that occur twice, hold nulls, since nobody can tell beforehand what a list of texts unpacks
    to.

    Raises: UserError for a file that is not a whole parquet file, or unpacks to more than MAX_ROWS or MAX_BYTES.
    """
    _try_elsewhere(path, columns)
    return _read(path, columns)


def _try_elsewhere(path: Path, columns: Collection[str]) -> None:
    """Read the file in a forked process first, since Arrow's C++ ends the process at some damaged files."""
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _read(path, columns)
        finally:
            os._exit(0)  # what it raises is raised again, and said, where it is read for good
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise UserError(
            f"{path} is not a whole parquet file (reading it ends with signal {os.WTERMSIG(status)}), or needs more "
            "memory than there is: fetch it again, or make it smaller"
        )


def _read(path: Path, columns: Collection[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            kinds = {name: schema.field(name).type for name in columns if schema.names.count(name) == 1}
            wanted = [name for name, kind in kinds.items() if may_hold("cluster", kind)]
            texts = [name for name in wanted if may_hold("prompt", kinds[name]) and not pa.types.is_null(kinds[name])]
            _check_size(path, metadata.num_rows, _unpacked_bytes(file, wanted))
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
            read = file.read(wanted, use_threads=False)  # forks and threads do not go together
            _check_size(path, read.num_rows, sum(_bytes_of_texts(read[name]) for name in texts))
            nulls = {name: pa.nulls(read.num_rows, kinds.get(name)) for name in schema.names}
            return pa.table([read[name] if name in wanted else nulls[name] for name in schema.names], schema.names)
    except MemoryError:  # which is one of Arrow's exceptions, too
        raise UserError(
            f"{path} needs more memory than there is, or is damaged: make it smaller, or fetch it again"
        ) from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno:  # of the system, not of what is in the file
            raise
        raise UserError(
            f"{path} is not a whole parquet file ({one_line(str(error), 200)}): check its ending or fetch it again"
        ) from None


def _unpacked_bytes(file: pq.ParquetFile, columns: list[str]) -> int:
    """Return how large the file says its columns are uncompressed. A text that occurs in many rows counts once."""
    paths = [file.schema.column(place).path for place in range(len(file.schema))]
    places = [place for place, path in enumerate(paths) if path in columns or path.split(".")[0] in columns]
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    return sum(group.column(place).total_uncompressed_size for group in groups for place in places)


def _bytes_of_texts(column: pa.ChunkedArray) -> int:
    if not pa.types.is_dictionary(column.type):  # a name with a dot in it that is also a path into another column
        return int(column.nbytes)
    lengths = (pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)) for chunk in column.chunks)
    return sum(length.as_py() or 0 for length in lengths)


def _check_size(path: Path, rows: int, size: int) -> None:
    if rows > MAX_ROWS or size > MAX_BYTES:
        raise UserError(
            f"{path} has {rows:,} rows that unpack to {size / (1 << 30):,.1f} GB of prompts, more than {MAX_ROWS:,} "
            f"rows or {MAX_BYTES >> 30} GB: make it smaller"
        )
