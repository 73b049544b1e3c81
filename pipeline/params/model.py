"""The sections `model` and `extract`, and `device`: which language model, what is taken from it, and where it runs."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.params.base import PARAMS_FILE, PathText, Repo, Section, Short

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]


class TinyParams(Section):
    """The small Qwen3 that is trained here when `model.source` is `tiny`."""

    layers: Annotated[int, Field(ge=1, le=12)]
    width: Annotated[int, Field(ge=64, le=512, multiple_of=64)]
    vocabulary: Annotated[int, Field(ge=512, le=32768)]
    train_prompts: Annotated[int, Field(ge=500, le=1_000_000)]
    steps: Annotated[int, Field(ge=1, le=1_000_000)]


class ModelParams(Section):
    """Where the language model comes from."""

    source: Literal["tiny", "hub", "local"]
    repo: Repo
    revision: Short
    path: PathText
    tiny: TinyParams


def _point(text: str) -> str:
    Point.parse(text)
    return text


class ExtractParams(Section):
    """What is taken from the model, for which tokens, and in what precision."""

    points: Annotated[list[Annotated[str, AfterValidator(_point)]], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=2, le=1_000_000)]
    batch_tokens: Annotated[int, Field(ge=2, le=100_000_000)]
    prompt_format: Literal["raw", "chat", "chat_thinking"]
    keep: Literal["prompt", "all"]
    dtype: Literal["float16", "bfloat16", "float32"]
    compute_dtype: Literal["auto", "float16", "bfloat16", "float32"]
    shard_mb: Annotated[int, Field(ge=1, le=512)]

    @field_validator("points")
    @classmethod
    def _once(cls, points: list[str]) -> list[str]:
        if len(set(points)) < len(points):
            raise ValueError("should not name a point twice")
        return points

    @field_validator("batch_tokens")
    @classmethod
    def _holds_a_prompt(cls, batch_tokens: int, info: ValidationInfo) -> int:
        if batch_tokens < info.data.get("max_tokens", 0):
            raise ValueError(f"should be at least extract.max_tokens, {info.data['max_tokens']}")
        return batch_tokens

    def parsed_points(self) -> list[Point]:
        """`points` as objects, in the order given."""
        return [Point.parse(point) for point in self.points]


def check_layers(points: Iterable[Point], layers: int) -> None:
    """Raise UserError when a point's layer is not one of the model's `layers` blocks."""
    for index, point in enumerate(points):
        if point.layer >= layers:
            raise UserError(
                f"{PARAMS_FILE}: extract.points.{index} = '{point}' is not allowed: the model has {layers} "
                f"layers, so a layer is 0..{layers - 1}"
            )
