"""Stage measure_sae: measure what an SAE reconstructs, how sparsely, and what it costs the language model."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.activations.store import ActivationStore, sampled
from pipeline.core.files import write_metrics, write_rows
from pipeline.core.points import Point
from pipeline.lm.load import load_language_model, load_tokenizer, pick_device
from pipeline.lm.lock import ModelLock
from pipeline.lm.tokens import PromptFormat, tokenise
from pipeline.params.base import read
from pipeline.prompts.table import Prompts, training_of_sae
from pipeline.sae.fidelity import fidelity
from pipeline.sae.metrics import measure
from pipeline.sae.model import Sae
from pipeline.sae.sparse_codes import TOKENS as CODED
from pipeline.sae.sparse_codes import other_codes
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage

TOKENS = 50_000  # of train and of held-out prompts, at most
FIDELITY_PROMPTS, FIDELITY_TOKENS = 200, 256  # prompts, and tokens of each at most
PROMPT_FORMAT: Any = PromptFormat  # Any: a Literal is no type[T] to mypy


def main(point: str, variant: str) -> None:
    seeds = read("seeds", list[int])
    store = ActivationStore(paths.ACTIVATIONS, point)
    metrics: dict[str, Any] = {}
    for seed, prompts in prompts_of_seeds(read("sae.target", int), seeds).items():
        train, held_out = training_of_sae(prompts, read("sae.train_on", str), read("sae.held_out_fraction", float))
        sae = Sae.load(paths.sae(point, variant, seed, seeds))
        held_acts = store.read(sampled(store.rows_of(held_out), TOKENS, seed))
        held = measure(sae, held_acts)
        if seed != seeds[0]:
            metrics[f"seed_{seed}"] = {name: held.metrics[name] for name in ("fvu", "l0", "dead_fraction")}
            continue
        train_acts = store.read(sampled(store.rows_of(train), TOKENS, seed))
        metrics["train"] = measure(sae, train_acts).metrics
        some_acts = held_acts[sampled(np.ones(len(held_acts), dtype=bool), CODED, seed)]
        metrics["held_out"] = held.metrics | {"other_codes": other_codes(sae, train_acts, some_acts)}
        some = [prompt_id for prompt_id in store.prompt_ids if prompt_id in held_out][:FIDELITY_PROMPTS]
        metrics["fidelity"] = _fidelity(sae, Point.parse(point), store.norm_limit, prompts, some)
        _plot("sae_density", point, variant, ("density", "latents", "encoder_decoder_cosine"), held.density_histogram())
        _plot("sae_l0", point, variant, ("percent_of_tokens", "active_latents"), held.l0_quantiles())
    write_metrics(paths.METRICS / "sae" / point / f"{variant}.json", metrics)


def _plot(name: str, point: str, variant: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    named = (dict(zip(columns, row, strict=True)) for row in rows)
    write_rows(paths.PLOTS / name / point / f"{variant}.csv", columns, named)


def _fidelity(
    sae: Sae, point: Point, norm_limit: float, prompts: Prompts, prompt_ids: list[str]
) -> dict[str, float] | None:
    """Return what the reconstruction costs the language model on these prompts; None when the model is not causal."""
    directory = ModelLock.read(paths.MODEL_LOCK).locate()
    device = pick_device(read("device", str))
    model = load_language_model(directory, read("extract.compute_dtype", str), device)
    if model is None:
        return None
    tokens = tokenise(
        load_tokenizer(directory),
        prompt_ids,
        [prompts.text_of[prompt_id] for prompt_id in prompt_ids],
        max_tokens=FIDELITY_TOKENS,
        prompt_format=read("extract.prompt_format", PROMPT_FORMAT),
    )
    return fidelity(model, tokens, point, norm_limit, sae, range(len(prompt_ids)))


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
