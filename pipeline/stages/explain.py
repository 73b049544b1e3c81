"""Stage explain: describe what the latents of one sparse autoencoder stand for, as the tables of a latent browser."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.activations.store import INDEX, ActivationStore
from pipeline.core.errors import UserError
from pipeline.core.files import read_table, write_json, write_table
from pipeline.core.progress import progress
from pipeline.judging.arm import USUAL_K, ArmId
from pipeline.latents.contributions import contributions
from pipeline.latents.decoder import logit_effects, neighbours, unembedding
from pipeline.latents.examples import examples
from pipeline.latents.firing import Firing
from pipeline.latents.statistics import density, mean_difference, rates, spread
from pipeline.latents.tables import CONTRIBUTIONS, LATENTS, PROMPTS, examples_table, pairs, table
from pipeline.latents.token_scores import specific_tokens, token_scores
from pipeline.lm.load import load_language_model, load_tokenizer
from pipeline.lm.lock import ModelLock
from pipeline.lm.token_texts import pieces, token_texts
from pipeline.lm.tokens import Keep, PromptFormat
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.attribution import Linear
from pipeline.probes.choices import stability_of
from pipeline.prompts.sources import listed, sum_of
from pipeline.prompts.table import NO_CLUSTER, Prompts
from pipeline.sae.model import Sae
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of
from pipeline.stages.run import run_stage

TOKENS, NEIGHBOURS = 8, 5  # of each latent
EXAMPLES, MORE_EXAMPLES = 5, 10  # of either kind: of most latents, and of those that the classifier uses most
MOST_USED = 256  # latents, by what they add to the difference between the classes
PROMPT_FORMAT: Any = PromptFormat  # Any: a Literal is no type[T] to mypy
KEEP: Any = Keep


def main(point: str, variant: str) -> None:
    seeds, clusters = read("seeds", list[int]), read("data.clusters", list[str])
    store = ActivationStore(paths.ACTIVATIONS, point)
    sae = Sae.load(paths.sae(point, variant, seeds[0], seeds))
    prompts = _in_order(prompts_of(read("probe", ProbeParams).target, seeds[0]), store)
    classifier = Linear.load(paths.probes(point, variant) / "sae", sae.latents)
    dense = Linear.load(paths.probes(point) / "dense", sae.width)
    stability = stability_of(
        paths.probes(point, variant) / ArmId("sae", (point,), variant, USUAL_K).classifier, sae.latents
    )
    directory = ModelLock.read(paths.MODEL_LOCK).locate()
    tokenizer = load_tokenizer(directory)
    index = read_table(paths.ACTIVATIONS / INDEX)
    token_ids = index["token_id"].to_numpy()
    texts = _texts(tokenizer, prompts, store.offsets, index["position"].to_numpy(), token_ids)
    columns, norm = _decoder_columns(sae, directory, tokenizer)  # before there is anything else in memory
    firing = Firing.of(store, sae)

    sources, of_sources = _sources(prompts)
    of_clusters = prompts.clusters[:, None] == np.arange(len(clusters))
    columns |= _activity_columns(firing, prompts, classifier, of_clusters, of_sources) | {"stability": stability}
    specific = list(specific_tokens(token_scores(firing, token_ids), TOKENS))
    columns["tokens"] = pairs(specific, _names(tokenizer, specific))
    most_used = np.argsort(-np.abs(columns["mean_contribution"]), kind="stable")[:MOST_USED]
    counts = np.full(firing.latents, EXAMPLES)
    counts[most_used] = MORE_EXAMPLES

    folder = paths.LATENTS / point / variant
    write_table(folder / "prompts.parquet", _prompts_table(prompts, texts, firing))
    write_table(folder / "latents.parquet", table(LATENTS, columns))
    write_table(folder / "examples.parquet", examples_table(examples(firing, prompts.groups, counts)))
    parts = list(contributions(store, firing, classifier, dense, ~prompts.train))
    by_column = {name: [part[name] for part in parts] for name in CONTRIBUTIONS.names}
    write_table(folder / "contributions.parquet", table(CONTRIBUTIONS, by_column))
    meta = {
        "point": point,
        "variant": variant,
        "pooling": classifier.pooling,
        "bias": {"sae": classifier.bias, "dense": dense.bias},
        "target": prompts.target,
        "clusters": clusters,
        "sources": sources,
        "final_norm": norm,
        "counts": {
            "latents": firing.latents,
            "prompts": {side: int((prompts.sides == side).sum()) for side in ("train", "test", "benign")},
            "clusters": of_clusters.sum(axis=0).tolist(),
            "sources": of_sources.sum(axis=0).tolist(),
            "tokens": len(store),
            "counted_tokens": int(firing.counted.sum()),
        },
    }
    write_json(folder / "meta.json", meta)


def _sources(prompts: Prompts) -> tuple[list[str], np.ndarray]:
    """Return the largest sources, not those of harmless prompts, and all others as one; and what is of each (N, n)."""
    labelled = prompts.clusters != NO_CLUSTER
    largest, others = listed(Counter(prompts.sources[labelled].tolist()))
    members = [prompts.sources == source for source in largest] + [np.isin(prompts.sources, others)] * bool(others)
    return [*largest, *sum_of(others)], np.stack(members, axis=1) & labelled[:, None]


def _in_order(prompts: Prompts, store: ActivationStore) -> Prompts:
    """Return the prompts in the order of the activations. Raise UserError when these are of other prompts."""
    place = {prompt_id: row for row, prompt_id in enumerate(prompts.ids)}
    if place.keys() != set(store.prompt_ids):
        raise UserError(f"{store.folder} has activations of other prompts than there are: run 'dvc repro'")
    return prompts.some(np.array([place[prompt_id] for prompt_id in store.prompt_ids]))


def _texts(
    tokenizer: Any, prompts: Prompts, offsets: np.ndarray, positions: np.ndarray, token_ids: np.ndarray
) -> list[list[str]]:
    """Return the pieces of text of each prompt's tokens. Raise UserError when the activations are of other tokens."""
    how: dict[str, Any] = {
        "prompt_format": read("extract.prompt_format", PROMPT_FORMAT),
        "keep": read("extract.keep", KEEP),
    }
    texts = []
    with progress(len(prompts.ids), "texts of tokens", "prompt") as bar:
        for prompt_id, text, start, end in zip(prompts.ids, prompts.texts, offsets[:-1], offsets[1:], strict=True):
            found = pieces(tokenizer, text, positions[start:end], token_ids[start:end], **how)
            if found is None:
                raise UserError(
                    f"the model's tokenizer makes other tokens of prompt {prompt_id} than {paths.ACTIVATIONS / INDEX} "
                    "has: run 'dvc repro' to extract again"
                )
            texts.append(found)
            bar.update()
    return texts


def _decoder_columns(sae: Sae, directory: Path, tokenizer: Any) -> tuple[dict[str, Any], bool | None]:
    """Return columns of what latents write, and whether logits follow a final norm; None: there are no logits."""
    decoder = sae.tensors["W_dec"]
    columns: dict[str, Any] = {"neighbours": pairs(zip(*neighbours(decoder, NEIGHBOURS), strict=True))}
    model = load_language_model(directory, "float32", "cpu", blocks=1)
    head = unembedding(model, len(tokenizer)) if model else None
    if head is None:
        nothing = [None] * len(decoder)
        return columns | {"promotes": nothing, "suppresses": nothing}, None
    for name, ranked in zip(("promotes", "suppresses"), logit_effects(decoder, head, TOKENS), strict=True):
        rows = list(zip(*ranked, strict=True))
        columns[name] = pairs(rows, _names(tokenizer, rows))
    return columns, head.norm


def _activity_columns(
    firing: Firing, prompts: Prompts, classifier: Linear, of_clusters: np.ndarray, of_sources: np.ndarray
) -> dict[str, Any]:
    """Return columns of what latents are active on, and of what the classifier makes of it."""
    sides = np.stack([prompts.test & prompts.labels, prompts.test & ~prompts.labels], axis=1)
    difference = mean_difference(firing, classifier.pooling, *sides.T)
    of_sides, source_rates = rates(firing, sides), rates(firing, of_sources)
    return {
        "latent": range(firing.latents),
        "density": density(firing, prompts.train),
        "weight": classifier.weight,
        "rate_target": of_sides[:, 0],
        "rate_other": of_sides[:, 1],
        "cluster_rates": rates(firing, of_clusters).tolist(),
        "source_rates": source_rates.tolist(),
        "source_spread": spread(source_rates),
        "mean_contribution": classifier.weight * difference,
        "max_activation": firing.tokens.max(axis=0).toarray().ravel(),
    }


def _names(tokenizer: Any, rows: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """Return the texts of all token ids in rows of (ids, values)."""
    ids = sorted({number for numbers, _ in rows for number in numbers.tolist()})
    return dict(zip(ids, token_texts(tokenizer, ids), strict=True))


def _prompts_table(prompts: Prompts, texts: list[list[str]], firing: Firing) -> Any:
    columns = {
        "prompt_id": prompts.ids,
        "side": prompts.sides,
        "cluster": prompts.clusters,
        "source": prompts.sources,
        "tokens": texts,
        "counted": np.split(firing.counted, firing.offsets[1:-1]),
    }
    return table(PROMPTS, columns)


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
