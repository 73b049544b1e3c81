"""The sections `probe` and `evaluate`: the classifiers and how they are judged."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import Section

Pooling = Literal["mean", "max", "last"]


class ProbeParams(Section):
    """The task, and what cross-validation inside train chooses from."""

    target: Annotated[int, Field(ge=0)]
    negatives: Literal["even", "natural"]
    poolings: Annotated[list[Pooling], Field(min_length=1)]
    c_grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    folds: Annotated[int, Field(ge=2, le=20)]
    min_class_prompts: Annotated[int, Field(ge=2)]
    scarce: list[Annotated[int, Field(ge=4, multiple_of=2)]]
    draws: Annotated[int, Field(ge=2)]
    noise: list[Annotated[float, Field(gt=0, lt=0.5)]]


class EvaluateParams(Section):
    """How intervals are made."""

    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
