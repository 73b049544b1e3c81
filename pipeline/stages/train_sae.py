"""Stage train_sae: one sparse autoencoder on the train prompts' activations at one point."""

import csv
import io
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.activations.store import ActivationStore
from pipeline.cli import run_stage
from pipeline.errors import UserError
from pipeline.files import read_table, write_metrics, write_text
from pipeline.params.base import read
from pipeline.params.sae import VariantParams
from pipeline.prompts.draw import hold_out_groups
from pipeline.sae.metrics import reconstruction_metrics
from pipeline.sae.train import train_sae

CURVE_EVERY = 10  # steps


def main(point: str, variant: str) -> None:
    params = read(f"sae.variants.{variant}", VariantParams)
    seed = read("seed", int)
    store = ActivationStore(paths.ACTIVATIONS, point)
    train, held_out = _prompts(
        read("sae.train_on", str), read("sae.target", int), read("sae.held_out_fraction", float), seed
    )
    train_acts, held_out_acts = (store.read(_rows(store, prompts)) for prompts in (train, held_out))
    if not len(held_out_acts):
        raise UserError(
            "no tokens are left to hold out of the SAE's training: use more data, or raise sae.held_out_fraction"
        )
    curve: list[tuple[int, float]] = []
    sae = train_sae(
        train_acts,
        **params.model_dump(),
        seed=seed,
        on_step=lambda step, fvu: curve.append((step, round(fvu, 4))) if step % CURVE_EVERY == 0 else None,
    )
    sae.save(paths.SAES / point / variant)
    metrics: dict[str, Any] = {
        "train": reconstruction_metrics(sae, train_acts),
        "held_out": reconstruction_metrics(sae, held_out_acts),
    }
    write_metrics(paths.METRICS / "sae" / point / f"{variant}.json", metrics)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("step", "fvu"), *curve])
    write_text(paths.PLOTS / "sae" / point / f"{variant}.csv", text.getvalue())


def _prompts(train_on: str, target: int, held_out_fraction: float, seed: int) -> tuple[set[str], set[str]]:
    """The ids of the train prompts to train on, and of those held back. Test prompts are in neither."""
    prompts = read_table(paths.PROMPTS)
    clusters = dict(zip(prompts["prompt_id"].to_pylist(), prompts["cluster"].to_pylist(), strict=True))
    rows = [
        row
        for row in read_table(paths.SPLITS).to_pylist()
        if row["split"] == "train"
        and (train_on == "all" or (clusters[row["prompt_id"]] == target) == (train_on == "target"))
    ]
    held_out_groups = hold_out_groups([row["group"] for row in rows], held_out_fraction, seed)
    held_out = {row["prompt_id"] for row in rows if row["group"] in held_out_groups}
    return {row["prompt_id"] for row in rows} - held_out, held_out


def _rows(store: ActivationStore, prompt_ids: set[str]) -> np.ndarray:
    """The usable rows of these prompts, bool (rows)."""
    wanted = np.array([prompt_id in prompt_ids for prompt_id in store.prompt_ids])
    return np.repeat(wanted, np.diff(store.offsets)) & store.usable


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
