"""The sections `data`, `filter` and `split`: which prompts, and which of them for what."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import Section


class Columns(Section):
    """Which column of the source holds each of the three things a prompt needs."""

    prompt: str
    source: str
    cluster: str


class DataParams(Section):
    """Where the prompts come from and how they are read."""

    source: Literal["sample", "hub", "local"]
    sample_rows: Annotated[int, Field(ge=500)]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(min_length=1)]
    split: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(min_length=1)]
    benign: Annotated[str, Field(min_length=1)]
    columns: Columns
    extra_columns: Literal["refuse", "drop"]
    clusters: Annotated[list[str], Field(min_length=2)]
    max_prompt_chars: Annotated[int, Field(ge=100)]


class FilterParams(Section):
    """Which prompts are dropped."""

    min_chars: Annotated[int, Field(ge=0)]
    deduplicate: bool
    max_prompts: Annotated[int, Field(ge=100)]


class SplitParams(Section):
    """How prompts are divided into train and test."""

    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    near_duplicate: Annotated[float, Field(gt=0, le=1)]
    shingle_chars: Annotated[int, Field(ge=2, le=20)]
