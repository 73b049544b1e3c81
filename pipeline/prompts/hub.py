"""Prompts from a dataset of the Hugging Face hub."""

import tempfile
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.hub import explained, fetch

DATA_FILES = ["README.md", "*.csv", "*.jsonl", "*.parquet"]  # the README says which file is which split


def load_hub_prompts(repo: str, commit: str, split: str) -> pa.Table:
    """Read one split of a dataset of .csv, .jsonl or .parquet files, with the dataset's own columns.

    The files are fetched and checked first, and read from the cache: given a repository's name, `datasets`
    checks no digests, and silently takes any other commit that it has cached when the hub fails.

    Args:
        repo: `owner/name` of the dataset.
        commit: 40 hex digits.
        split: one of the dataset's splits.

    Raises: UserError as `pipeline.hub.fetch` does, for a split that is not there, and for files that do not
    make a table.
    """
    directory = str(fetch(repo, commit, "dataset", DATA_FILES))
    import datasets  # takes a second: not before the hub has answered

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it then raises
    # the table is for our own files, so that the library's copy need not stay
    with explained(repo, commit, "dataset"), tempfile.TemporaryDirectory() as cache:
        try:
            builder = datasets.load_dataset_builder(directory, cache_dir=cache)
            splits = [str(name) for name in builder.config.data_files or {}]
            if split not in splits:
                raise UserError(
                    f"data.split = {split} is not a split of dataset {repo}: set it to one of {', '.join(splits)}"
                )
            # a prompt that reads None, NA or null is a prompt
            options: dict[str, Any] = {"keep_default_na": False} if builder.name == "csv" else {}
            dataset = datasets.load_dataset(directory, split=split, cache_dir=cache, keep_in_memory=True, **options)
        except (datasets.exceptions.DatasetsError, FileNotFoundError, ValueError) as error:
            reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(
                f"dataset {repo} (data.repo) at {commit} is not a table in .csv, .jsonl or .parquet files "
                f"({reason}): set data.revision or data.repo to one that is, or mend a copy and set "
                "data.source to local"
            ) from error
        table: pa.Table = dataset.with_format("arrow")[:]
    return table.replace_schema_metadata(None)
