"""The section `sae`: which sparse autoencoders are trained, on what and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from pipeline.core.errors import UserError
from pipeline.params.base import PARAMS_FILE, PathText, Section, read, validate

Architecture = Literal["relu", "gated", "jump_relu", "topk", "batch_topk", "matryoshka", "pretrained"]
MemoryMb: Any = Annotated[int, Field(ge=1, le=100_000_000)] | None  # Any: a union is no type[T] to mypy
TrainOn = Literal["all", "target", "non_target"]
VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]


class SharedParams(Section):
    """The keys of `sae` that hold for every variant that does not override them."""

    width: Annotated[int, Field(ge=2, le=2**22)]
    k: Annotated[int, Field(ge=1)]
    lr: Annotated[float, Field(gt=0)] | None
    batch_size: Annotated[int, Field(ge=1, le=2**22)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    patience: Annotated[int, Field(ge=1, le=100_000)] | None
    aux_coefficient: Annotated[float, Field(ge=0)]


class VariantParams(SharedParams):
    """One sparse autoencoder and its training, with the shared values of what it does not override.

    `pretrained` is one trained elsewhere, in SAELens's format, of which only path and sha256 are given: the hash of its
    sae_weights.safetensors says which one is meant, and DVC notices when it changes.
    """

    architecture: Architecture
    path: PathText | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class SaeParams(SharedParams):
    """Which variants are trained, and on which prompts. `variants` holds what the file says: see `variant`."""

    train_on: TrainOn
    target: Annotated[int, Field(ge=0, lt=1000)]
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)]
    memory_mb: MemoryMb
    variants: dict[VariantName, dict[str, Any]]
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

    @model_validator(mode="after")
    def _each_variant(self) -> Self:
        for name in self.variants:
            self.variant(name)
        return self

    def variant(self, name: str) -> VariantParams:
        """A variant, complete."""
        return _complete(name, self, self.variants[name])


def read_variant(name: str) -> VariantParams:
    """Read a variant of params.yaml from the shared keys and its own entry, and no other variant's."""
    shared = {key: read(f"sae.{key}", object) for key in SharedParams.model_fields}
    return _complete(name, validate("sae", SharedParams, shared), read(f"sae.variants.{name}", dict[str, Any]))


def _complete(name: str, shared: SharedParams, own: dict[str, Any]) -> VariantParams:
    """Join shared values, which are valid, with the variant's own, which win, a null too.

    Raise UserError that names the key that stands in the file.
    """
    entry = f"sae.variants.{name}"
    variant = validate(entry, VariantParams, {key: getattr(shared, key) for key in SharedParams.model_fields} | own)
    if variant.architecture == "pretrained":
        for key in ("path", "sha256"):
            if getattr(variant, key) is None:
                raise UserError(f"{PARAMS_FILE}: key '{entry}.{key}' is missing: a pretrained SAE needs it")
    elif variant.k > variant.width:
        k, width = (f"{entry}.{key}" if key in own else f"sae.{key}" for key in ("k", "width"))
        wrong = f"{k} = {variant.k} is not allowed: should be at most {width}, {variant.width}"
        if "width" in own and "k" not in own:
            wrong = f"{width} = {variant.width} is not allowed: should be at least {k}, {variant.k}"
        raise UserError(f"{PARAMS_FILE}: {wrong}")
    return variant
