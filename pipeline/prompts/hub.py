"""Read prompts from a dataset of the Hugging Face hub."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from pipeline.core.errors import UserError
from pipeline.core.hub import fetch
from pipeline.prompts.hub_splits import CARD, splits_of
from pipeline.prompts.local import load_local_prompts

DATA_FILES = ["*.csv", "*.jsonl", "*.parquet"]


def load_hub_prompts(repo: str, commit: str, split: str, columns: Collection[str]) -> pa.Table:
    """Read one split of a dataset of .csv, .jsonl or .parquet files, with the dataset's own columns.

    The files are fetched and checked first, and then read from the cache as local files are. README.md decides which
    files are which split, and nothing else.

    Args:
        repo: `owner/name` of the dataset.
        commit: 40 hex digits.
        split: one of the dataset's splits.
        columns: those whose values are wanted, see `load_local_prompts`.

    Raises: UserError as `pipeline.core.hub.fetch` does, for a split that does not exist, and for files that do not make
        a table.
    """
    snapshot = fetch(repo, commit, "dataset", [CARD, *DATA_FILES])
    try:
        splits = splits_of(snapshot)
        if split not in splits:
            raise UserError(
                f"data.split = {split} is not a split of dataset {repo}: set it to one of {', '.join(splits)[:200]}"
            )
        tables = [_read(snapshot.directory, name, columns) for name in splits[split]]
        return pa.concat_tables(tables, promote_options="permissive")
    except (ValueError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"dataset {repo} (data.repo) at {commit} is not a table in .csv, .jsonl or .parquet files "
            f"({reason}): set data.revision or data.repo to one that is, or mend a copy and set data.source to local"
        ) from error


def _read(directory: Path, name: str, columns: Collection[str]) -> pa.Table:
    try:
        table = load_local_prompts(directory / name, columns)
    except UserError as error:
        raise ValueError(str(error).replace(f"{directory}/", "")) from error
    return table.replace_schema_metadata(None)
