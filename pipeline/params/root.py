"""The whole of params.yaml, with the checks that need more than one section.

No stage reads its values from here, only from its own sections: this is what refuses a bad file before any
stage starts, so it decides whether a stage runs and never what it writes.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.core.errors import UserError
from pipeline.params.base import PARAMS_FILE, Section, read_file, validate
from pipeline.params.data import DataParams, FilterParams, SplitParams
from pipeline.params.model import Device, ExtractParams, ModelParams, check_layers
from pipeline.params.on_disk import check_directory, check_file
from pipeline.params.probe import EvaluateParams, ProbeParams
from pipeline.params.sae import SaeParams

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Params(Section):
    """All sections."""

    seed: Seed
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100)]
    device: Device
    data: DataParams
    filter: FilterParams
    split: SplitParams
    model: ModelParams
    extract: ExtractParams
    sae: SaeParams
    probe: ProbeParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"{PARAMS_FILE}: seeds = {self.seeds} is not allowed: name each seed once")
        if self.probe.target >= len(self.data.clusters):
            raise UserError(
                f"{PARAMS_FILE}: probe.target = {self.probe.target} is not allowed: data.clusters names clusters "
                f"0..{len(self.data.clusters) - 1}"
            )
        if self.sae.train_on != "all" and self.sae.target != self.probe.target:
            raise UserError(
                f"{PARAMS_FILE}: sae.target = {self.sae.target} is not allowed: with sae.train_on = "
                f"{self.sae.train_on} it must equal probe.target = {self.probe.target}"
            )
        if self.model.source == "tiny":
            check_layers(self.extract.parsed_points(), self.model.tiny.layers)
        return self


def check_params_file() -> Params:
    """All of params.yaml. Raise UserError when anything in it is wrong, in whichever section, or on this machine."""
    params = validate("", Params, read_file())
    check_file("data.path", params.data.path)
    check_file("data.benign", params.data.benign)
    check_directory("model.path", params.model.path)
    if Path(params.model.path).resolve().is_relative_to(Path("models/tiny").resolve()):
        raise UserError(
            f"{PARAMS_FILE}: model.path = {params.model.path!r} is not allowed: stage fetch_model writes there itself; "
            "copy the model elsewhere"
        )
    for name in params.sae.variants:
        path = params.sae.variant(name).path
        if path is not None:
            check_directory(f"sae.variants.{name}.path", path)
    return params
