"""The sections `probe` and `evaluate`: the classifiers and how they are judged."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import Section

Pooling = Literal["mean", "max", "last"]


class ProbeParams(Section):
    """The task, and what cross-validation inside train chooses from."""

    target: Annotated[int, Field(ge=0, lt=1000)]
    negatives: Literal["even", "natural"]
    poolings: Annotated[list[Pooling], Field(min_length=1, max_length=3)]
    c_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=100)]
    folds: Annotated[int, Field(ge=2, le=20)]
    group_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None
    min_class_prompts: Annotated[int, Field(ge=2, le=1_000_000)]
    scarce: Annotated[list[Annotated[int, Field(ge=4, le=1_000_000, multiple_of=2)]], Field(max_length=100)]
    draws: Annotated[int, Field(ge=2, le=1000)]
    noise: Annotated[list[Annotated[float, Field(gt=0, lt=0.5)]], Field(max_length=100)]


class EvaluateParams(Section):
    """How intervals are made."""

    resamples: Annotated[int, Field(ge=100, le=10_000)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
