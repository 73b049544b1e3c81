"""The sections `data`, `filter` and `split`: which prompts, and which of them for what."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.params.base import PathText, Repo, Section, Short
from pipeline.params.names import Name, distinct


class Columns(Section):
    """Which column of the source holds each of the three things a prompt needs."""

    prompt: Short
    source: Short
    cluster: Short


class DataParams(Section):
    """Where the prompts come from and how they are read."""

    source: Literal["sample", "hub", "local"]
    sample_rows: Annotated[int, Field(ge=500, le=1_000_000)]
    repo: Repo
    revision: Short
    split: Short
    path: PathText
    benign: PathText
    columns: Columns
    extra_columns: Literal["refuse", "drop"]
    clusters: Annotated[list[Name], Field(min_length=2, max_length=1000), AfterValidator(distinct)]
    max_prompt_chars: Annotated[int, Field(ge=100, le=100_000_000)]


class FilterParams(Section):
    """Which prompts are dropped."""

    min_chars: Annotated[int, Field(ge=0, le=100_000_000)]
    deduplicate: bool
    max_prompts: Annotated[int, Field(ge=100, le=100_000_000)]


class SplitParams(Section):
    """How prompts are divided into train and test."""

    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    near_duplicate: Annotated[float, Field(gt=0, le=1)]
    shingle_chars: Annotated[int, Field(ge=2, le=20)]
    same_words: Annotated[float, Field(gt=0, le=1)] | None
    template_words: Annotated[int, Field(ge=3, le=100)] | None
    largest_group: Annotated[float, Field(gt=0, le=1)]
