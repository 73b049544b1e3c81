"""The section `sae`: which sparse autoencoders are trained, on what and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from pipeline.params.base import PathText, Section

Architecture = Literal["relu", "gated", "jump_relu", "topk", "batch_topk", "matryoshka", "pretrained"]
MemoryMb: Any = Annotated[int, Field(ge=1, le=100_000_000)] | None  # Any: a union is no type[T] to mypy
TrainOn = Literal["all", "target", "non_target"]
VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]


class VariantParams(Section):
    """One sparse autoencoder and its training. The keys with a default may be left out.

    `pretrained` is one trained elsewhere, in SAELens's format, of which only path and sha256 are given: the hash of its
    sae_weights.safetensors says which one is meant, and DVC notices when it changes.
    """

    architecture: Architecture
    width: Annotated[int, Field(ge=2, le=2**22)] | None = None
    k: Annotated[int, Field(ge=1)] | None = None
    lr: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=2**22)] = 1024
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    patience: Annotated[int, Field(ge=1, le=100_000)] | None = 3
    aux_coefficient: Annotated[float, Field(ge=0)] = 1 / 32
    path: PathText | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @field_validator("k")
    @classmethod
    def _at_most_width(cls, k: int | None, info: ValidationInfo) -> int | None:
        width = info.data.get("width")
        if k is not None and width is not None and k > width:
            raise ValueError(f"should be at most the variant's width, {width}")
        return k

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = ("path", "sha256") if self.architecture == "pretrained" else ("width", "k")
        missing = [name for name in wanted if getattr(self, name) is None]
        if missing:
            raise ValueError(f"architecture {self.architecture} also needs {' and '.join(missing)}")
        return self


class SaeParams(Section):
    """Which variants are trained, and on which prompts."""

    train_on: TrainOn
    target: Annotated[int, Field(ge=0, lt=1000)]
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]
    memory_mb: MemoryMb
    variants: dict[VariantName, VariantParams]
    train: Annotated[list[str], Field(min_length=1)]

    @field_validator("train")
    @classmethod
    def _known_once(cls, train: list[str], info: ValidationInfo) -> list[str]:
        variants = info.data.get("variants", train)
        if not set(train) <= set(variants):
            raise ValueError(f"should name variants of sae.variants: {', '.join(variants)}")
        if len(set(train)) < len(train):
            raise ValueError("should not name a variant twice")
        return train
