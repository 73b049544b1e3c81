"""Stage train_sae: train an SAE on the train prompts' activations at one point, or take one trained elsewhere."""

from pathlib import Path

import pyarrow as pa

from pipeline.activations.store import ActivationStore, sampled
from pipeline.core.errors import UserError
from pipeline.core.files import sha256_of, write_rows, write_table
from pipeline.params.base import PARAMS_FILE, read
from pipeline.params.sae import MemoryMb, VariantParams, read_variant
from pipeline.prompts.table import training_of_sae
from pipeline.sae.data import Activations
from pipeline.sae.model import WEIGHTS, Sae
from pipeline.sae.train import train_sae
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of
from pipeline.stages.run import run_stage

CURVE_EVERY = 10  # steps
CURVE = ("step", "fvu", "l0", "dead_fraction")
HELD_OUT_TOKENS = 50_000


def main(point: str, variant: str) -> None:
    params = read_variant(variant)
    seeds = read("seeds", list[int])
    store = ActivationStore(paths.ACTIVATIONS, point)
    for seed in seeds:
        train, held_out = training_of_sae(
            prompts_of(read("sae.target", int), seed), read("sae.train_on", str), read("sae.held_out_fraction", float)
        )
        held_out_acts = store.read(sampled(store.rows_of(held_out), HELD_OUT_TOKENS, seed))
        if not len(held_out_acts):
            raise UserError(
                "no tokens are left to hold out of the SAE's training: use more data, or raise sae.held_out_fraction"
            )
        curve: list[tuple[int, float, float, float]] = []
        if params.architecture == "pretrained":
            sae = _pretrained(params, variant, store)
        else:
            sae = train_sae(
                Activations(store.readers(store.rows_of(train)), memory_mb=read("sae.memory_mb", MemoryMb)),
                **params.model_dump(exclude={"path", "sha256"}),
                held_out=held_out_acts,
                seed=seed,
                checkpoint=paths.unfinished(paths.SAES) / f"{point}-{variant}-{seed}.safetensors",
                on_step=lambda *point, curve=curve: curve.append(point) if point[0] % CURVE_EVERY == 0 else None,
            )
        folder = paths.sae(point, variant, seed, seeds)
        sae.save(folder)
        # which test prompts must not be among; of an SAE trained elsewhere that is not known
        seen = [] if params.architecture == "pretrained" else sorted(train | held_out)
        write_table(folder / paths.TRAINED_ON, pa.table({"prompt_id": pa.array(seen, pa.string())}))
        if seed == seeds[0]:
            rows = (dict(zip(CURVE, row, strict=True)) for row in curve)
            write_rows(paths.PLOTS / "sae" / point / f"{variant}.csv", CURVE, rows)


def _pretrained(params: VariantParams, variant: str, store: ActivationStore) -> Sae:
    """Load the SAE at the variant's path. Raise UserError unless it is the one meant, and fits the activations."""
    folder = Path(str(params.path))
    try:
        sae = Sae.load(folder)
    except UserError as error:  # 'dvc repro' does not make this one
        raise UserError(f"{PARAMS_FILE}: sae.variants.{variant}.path: {error}") from None
    found = sha256_of(folder / WEIGHTS)
    if found != params.sha256:
        raise UserError(
            f"{PARAMS_FILE}: sae.variants.{variant}.sha256 is not that of {folder / WEIGHTS}: if that file is meant, "
            f"set it to {found}"
        )
    if sae.width != store.width:
        raise UserError(f"{folder} is for activations of width {sae.width}, those of {store.folder} have {store.width}")
    return sae


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
