"""Stage train_sae: one sparse autoencoder on the train prompts' activations at one point, or one trained elsewhere."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.activations.store import ActivationStore
from pipeline.core.errors import UserError
from pipeline.core.files import read_table, sha256_of, write_metrics, write_rows, write_table
from pipeline.core.points import Point
from pipeline.lm.load import load_language_model, load_tokenizer, pick_device
from pipeline.lm.lock import ModelLock
from pipeline.lm.tokens import PromptFormat, tokenise
from pipeline.params.base import PARAMS_FILE, read
from pipeline.params.sae import MemoryMb, VariantParams
from pipeline.prompts.draw import hold_out_groups
from pipeline.sae.data import Activations
from pipeline.sae.fidelity import fidelity
from pipeline.sae.metrics import Measurement, measure
from pipeline.sae.model import WEIGHTS, Sae
from pipeline.sae.train import train_sae
from pipeline.stages import paths
from pipeline.stages.run import run_stage

CURVE_EVERY = 10  # steps
METRIC_TOKENS = 50_000
FIDELITY_PROMPTS, FIDELITY_TOKENS = 200, 256  # prompts, and tokens of each at most
PROMPT_FORMAT: Any = PromptFormat  # Any: a Literal is no type[T] to mypy


def main(point: str, variant: str) -> None:
    params = read(f"sae.variants.{variant}", VariantParams)
    seeds = read("seeds", list[int])
    store = ActivationStore(paths.ACTIVATIONS, point)
    metrics: dict[str, Any] = {}
    for seed in seeds:
        train, held_out = _prompts(
            read("sae.train_on", str), read("sae.target", int), read("sae.held_out_fraction", float), seed
        )
        train_rows, held_out_acts = _rows(store, train), store.read(_sample(_rows(store, held_out), seed))
        if not len(held_out_acts):
            raise UserError(
                "no tokens are left to hold out of the SAE's training: use more data, or raise sae.held_out_fraction"
            )
        curve: list[tuple[int, float, float, float]] = []
        if params.architecture == "pretrained":
            sae = _pretrained(params, variant, store)
        else:
            sae = train_sae(
                Activations(store.readers(train_rows), memory_mb=read("sae.memory_mb", MemoryMb)),
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
        held = measure(sae, held_out_acts)
        if seed != seeds[0]:
            metrics[f"seed_{seed}"] = {name: held.metrics[name] for name in ("fvu", "l0", "dead_fraction")}
            continue
        metrics["train"] = measure(sae, store.read(_sample(train_rows, seed))).metrics
        metrics["held_out"] = held.metrics
        held_out_prompts = [prompt_id for prompt_id in store.prompt_ids if prompt_id in held_out]
        metrics["fidelity"] = _fidelity(sae, Point.parse(point), store.norm_limit, held_out_prompts[:FIDELITY_PROMPTS])
        _write_plots(f"{point}/{variant}.csv", curve, held)
    write_metrics(paths.METRICS / "sae" / point / f"{variant}.json", metrics)


def _write_plots(name: str, curve: list[tuple[int, float, float, float]], held: Measurement) -> None:
    _write_csv(paths.PLOTS / "sae" / name, ("step", "fvu", "l0", "dead_fraction"), curve)
    _write_csv(
        paths.PLOTS / "sae_density" / name, ("density", "latents", "encoder_decoder_cosine"), held.density_histogram()
    )
    _write_csv(paths.PLOTS / "sae_l0" / name, ("percent_of_tokens", "active_latents"), held.l0_quantiles())


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    write_rows(path, columns, (dict(zip(columns, row, strict=True)) for row in rows))


def _pretrained(params: VariantParams, variant: str, store: ActivationStore) -> Sae:
    """The SAE at the variant's path. Raise UserError unless it is the one meant, and fits the activations."""
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


def _fidelity(sae: Sae, point: Point, norm_limit: float, prompt_ids: list[str]) -> dict[str, float] | None:
    """What the reconstruction costs the language model on these prompts; None when it is not a causal one."""
    directory = ModelLock.read(paths.MODEL_LOCK).locate()
    device = pick_device(read("extract.device", str))
    model = load_language_model(directory, read("extract.compute_dtype", str), device)
    if model is None:
        return None
    table = read_table(paths.PROMPTS)
    texts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    tokens = tokenise(
        load_tokenizer(directory),
        prompt_ids,
        [texts[prompt_id] for prompt_id in prompt_ids],
        max_tokens=FIDELITY_TOKENS,
        prompt_format=read("extract.prompt_format", PROMPT_FORMAT),
    )
    return fidelity(model, tokens, point, norm_limit, sae, range(len(prompt_ids)))


def _prompts(train_on: str, target: int, held_out_fraction: float, seed: int) -> tuple[set[str], set[str]]:
    """The ids of the train prompts to train on, and of those held back. Test prompts are in neither."""
    prompts, splits = read_table(paths.PROMPTS), read_table(paths.SPLITS)
    side = f"split_{seed}" if f"split_{seed}" in splits.column_names else "split"
    clusters = dict(zip(prompts["prompt_id"].to_pylist(), prompts["cluster"].to_pylist(), strict=True))
    rows = [
        row
        for row in splits.to_pylist()
        if row[side] == "train"
        and (train_on == "all" or (clusters[row["prompt_id"]] == target) == (train_on == "target"))
    ]
    held_out_groups = hold_out_groups([row["group"] for row in rows], held_out_fraction, seed)
    held_out = {row["prompt_id"] for row in rows if row["group"] in held_out_groups}
    return {row["prompt_id"] for row in rows} - held_out, held_out


def _rows(store: ActivationStore, prompt_ids: set[str]) -> np.ndarray:
    """The rows of these prompts that count, bool (rows)."""
    wanted = np.array([prompt_id in prompt_ids for prompt_id in store.prompt_ids])
    return np.repeat(wanted, np.diff(store.offsets)) & store.counted


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most METRIC_TOKENS of the rows, bool (rows): metrics need not be of all of them."""
    chosen = np.flatnonzero(rows)
    if len(chosen) > METRIC_TOKENS:
        chosen = np.random.default_rng(seed).choice(chosen, METRIC_TOKENS, replace=False)
    sample = np.zeros_like(rows)
    sample[chosen] = True
    return sample


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
