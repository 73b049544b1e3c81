"""Stage intervene: remove tokens from prompts and latents from the language model, and see what classifiers say."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore
from pipeline.core.files import write_metrics, write_rows
from pipeline.core.points import Point
from pipeline.interventions import ablation, deletion
from pipeline.interventions.latents import Sets, choose, equalising, removed_norms
from pipeline.judging.arm import ArmId
from pipeline.judging.settings import Balancing, balanced
from pipeline.lm.load import DTYPES, load_language_model, load_model, load_tokenizer, pick_device
from pipeline.lm.lock import ModelLock
from pipeline.lm.tokens import Keep, PromptTokens, input_limit, tokenise
from pipeline.params.base import read
from pipeline.params.model import ExtractParams
from pipeline.params.probe import ProbeParams
from pipeline.probes.attribution import Classifier, Linear
from pipeline.prompts.draw import draw_key
from pipeline.prompts.table import Prompts
from pipeline.sae.model import Sae
from pipeline.stages import paths
from pipeline.stages.clean_up import remove_probes_of_other_points
from pipeline.stages.prompts import prompts_of
from pipeline.stages.run import run_stage


def main(point: str, variant: str) -> None:
    params, extract = read("probe", ProbeParams), read("extract", ExtractParams)
    seeds = read("seeds", list[int])
    prompts = prompts_of(params.target, seeds[0])
    train, test = (balanced(prompts, side, Balancing.of(params)) for side in ("train", "test"))
    at, sae = Point.parse(point), Sae.load(paths.sae(point, variant, seeds[0], seeds))
    of_sae = Linear.load(paths.probes(point, variant) / "sae", sae.latents)
    dense = {each: _dense(each, sae.width) for each in ablation.downstream(at, extract.parsed_points())}
    stores = {each: ActivationStore(paths.ACTIVATIONS, str(each)) for each in dense}
    sets = choose(
        stores[at],
        sae,
        of_sae,
        [prompts.ids[row] for row in train],
        prompts.labels[train],
        prompts.seed,
    )
    model = _Model(extract, read("device", str))
    targets, others = (_drawn(prompts, test[prompts.labels[test] == label]) for label in (True, False))
    here = {"sae": Classifier(of_sae, sae.encode), "dense": dense[at]}
    curves = _curves(model, prompts, targets, stores[at], here)
    spread = {name: _spread(stores[at], each, [prompts.ids[row] for row in test]) for name, each in here.items()}
    rows = targets[: ablation.PROMPTS] + others[: ablation.PROMPTS]
    readers = {"sae": (at, here["sae"])}
    readers |= {str(ArmId("dense", (str(each),))): (each, classifier) for each, classifier in dense.items()}
    metrics = {
        "logit_sd": spread,
        "faithfulness": curves.areas(spread),
        "ablation": _ablation(model, prompts, rows, at, sae, sets, readers, stores),
    }
    remove_probes_of_other_points(extract.points)  # not before there is something to show for it
    write_metrics(paths.METRICS / "interventions" / point / f"{variant}.json", metrics)
    write_rows(paths.PLOTS / "interventions" / point / f"{variant}.csv", deletion.COLUMNS, curves.rows())


class _Model:
    """The language model, and prompts as `extract` passes them to it."""

    def __init__(self, extract: ExtractParams, device: str) -> None:
        lock = ModelLock.read(paths.MODEL_LOCK)
        self.extract = extract
        self.directory = lock.locate()
        self.tokenizer = load_tokenizer(self.directory)
        self.limit = input_limit(self.tokenizer, extract.max_tokens, lock.max_positions)
        self.precision_and_device = extract.compute_dtype, pick_device(device)

    def tokens(self, prompts: Prompts, rows: list[int], keep: Keep) -> PromptTokens:
        ids, texts = ([each[row] for row in rows] for each in (prompts.ids, prompts.texts))
        form = self.extract.prompt_format
        return tokenise(self.tokenizer, ids, texts, max_tokens=self.limit, prompt_format=form, keep=keep)

    def upto(self, layer: int) -> Any:
        return load_model(self.directory, layer + 1, *self.precision_and_device)

    def whole(self) -> Any:
        """Return the model with its language-modelling head; None when it has none."""
        return load_language_model(self.directory, *self.precision_and_device)


def _dense(point: Point, width: int) -> Classifier:
    return Classifier(Linear.load(paths.probes(str(point)) / "dense", width), lambda x_TD: x_TD)


def _drawn(prompts: Prompts, rows: np.ndarray) -> list[int]:
    """Draw some of the rows at random, no two of them near-duplicates."""
    shuffled = sorted(rows.tolist(), key=lambda row: draw_key(prompts.seed, "intervene", prompts.ids[row]))
    first = {prompts.groups[row]: row for row in reversed(shuffled)}
    return sorted(first.values(), key=shuffled.index)


def _spread(store: ActivationStore, classifier: Classifier, prompt_ids: list[str]) -> float:
    """Return the standard deviation of a classifier's logit over prompts."""
    linear = classifier.linear
    features = pooled(store, prompt_ids, [linear.pooling], lambda x_ND: {"x": classifier.features(x_ND)}, ["x"])
    return float(np.std(features["x"][linear.pooling] @ linear.weight))


def _curves(
    model: _Model, prompts: Prompts, rows: list[int], store: ActivationStore, classifiers: Mapping[str, Classifier]
) -> deletion.Curves:
    tokens = model.tokens(prompts, rows, model.extract.keep)
    may_go = deletion.removable(tokens, model.tokens(prompts, rows, "prompt"))
    long = [number for number, positions in enumerate(may_go) if len(positions) >= deletion.FEWEST][: deletion.PROMPTS]
    return deletion.curves(
        model.upto(store.point.layer),
        tokens.some(long),
        [may_go[number] for number in long],
        store.point,
        classifiers,
        norm_limit=store.norm_limit,
        batch_tokens=model.extract.batch_tokens,
        dtype=DTYPES[model.extract.dtype],
        seed=prompts.seed,
    )


def _ablation(
    model: _Model,
    prompts: Prompts,
    rows: list[int],
    point: Point,
    sae: Sae,
    sets: Sets,
    classifiers: Mapping[str, tuple[Point, Classifier]],
    stores: Mapping[Point, ActivationStore],
) -> dict[str, Any]:
    tokens = model.tokens(prompts, rows, model.extract.keep)
    labels = prompts.labels[rows]
    sides = {"target": labels, "other": ~labels}
    deepest = max(each.layer for each, _ in classifiers.values())
    latents = [sets.top, *sets.random]
    norms = removed_norms(stores[point], sae, latents, [prompts.ids[row] for row in rows])
    factors = equalising(norms, list(sides.values()))
    clean, changed = ablation.ablate(
        model.whole() or model.upto(deepest),
        tokens,
        point,
        sae,
        {str(number): ablation.Removal(each, factors[:, number]) for number, each in enumerate(latents)},
        classifiers,
        {each: store.norm_limit for each, store in stores.items()},
        model.extract.batch_tokens,
    )
    of_sets = [
        {
            "density": float(sets.density[latents[number]].mean()),
            "factor": {side: float(factors[mask, number].mean()) for side, mask in sides.items()},
            "removed_norm": {side: outcome.removed_norm(mask) for side, mask in sides.items()},
        }
        for number, outcome in enumerate(changed.values())
    ]
    changes = [{side: each.changes(clean, mask) for side, mask in sides.items()} for each in changed.values()]
    return {
        "prompts": {side: int(mask.sum()) for side, mask in sides.items()},
        "model": {side: clean.levels(mask) for side, mask in sides.items()},
        "top_latents": sets.top.tolist(),
        "random_draws": len(sets.random),
        "top": of_sets[0] | changes[0],
        "random": ablation.mean_and_range(of_sets[1:]) | ablation.beside(changes[0], changes[1:]),
    }


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
