"""Stage evaluate: the one judge of all arms' scores, with intervals and paired differences."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.core.files import read_json, read_table, write_metrics, write_rows
from pipeline.judging.comparisons import Evaluation
from pipeline.params.base import read
from pipeline.params.probe import EvaluateParams, ProbeParams
from pipeline.probes.choices import choices_of
from pipeline.stages import paths
from pipeline.stages.clean_up import remove_left_overs
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage

STABLE_ARM = "sae-k16"
CURVES = {  # and their columns
    "roc": ("arm", "fpr", "tpr"),
    "precision_recall": ("arm", "recall", "precision"),
    "reliability": ("arm", "probability", "share_of_targets", "prompts"),
    "k_frontier": ("point", "arm", "k", "auroc", "auroc_low", "auroc_high"),
    "scarcity": ("arm", "train_prompts", "auroc"),
    "noise": ("arm", "percent_flipped", "auroc"),
}


def main() -> None:
    params = read("probe", ProbeParams)
    seeds = read("seeds", list[int])
    points, variants = read("extract.points", list[str]), read("sae.train", list[str])
    how = read("evaluate", EvaluateParams)
    evaluation = Evaluation(
        pa.concat_tables(_scores(points, variants)),
        prompts_of_seeds(params.target, seeds),
        negatives=params.negatives,
        fewest=params.min_class_prompts,
        variants=variants,
        **how.model_dump(),
    )
    results = evaluation.results() | {"stability": _stability(points, variants)}
    remove_left_overs(points, variants)  # not before there is something to show for it
    write_metrics(paths.METRICS / "probes.json", results)
    write_metrics(paths.METRICS / "summary.json", _summary(evaluation, results, points, variants))
    for name, columns in CURVES.items():
        write_rows(paths.PLOTS / f"{name}.csv", columns, getattr(evaluation, name)())


def _scores(points: list[str], variants: list[str]) -> Iterator[pa.Table]:
    """The scores of every arm that params.yaml asks for."""
    yield read_table(paths.SCORES / "text.parquet")
    for point in points:
        yield read_table(paths.SCORES / "dense" / f"{point}.parquet")
        for variant in variants:
            yield read_table(paths.SCORES / "sae" / point / f"{variant}.parquet")


def _stability(points: list[str], variants: list[str]) -> dict[str, Any]:
    """How much the latents of the k-sparse SAE probes depend on which prompts were drawn."""
    found: dict[str, Any] = {}
    for point in points:
        for variant in variants:
            folder = paths.PROBES / "sae" / point / variant / STABLE_ARM
            if not folder.is_dir():  # the SAE has fewer latents
                continue
            stability = choices_of(folder)["stability"]
            found.setdefault(point, {})[variant] = {name: stability[name] for name in ("k", "jaccard", "always")}
    return found


def _summary(evaluation: Evaluation, results: dict[str, Any], points: list[str], variants: list[str]) -> dict[str, Any]:
    """The headline: the best dense and the best SAE probe by cross-validation inside train, and their difference."""

    def cv_auroc(*folders: str) -> float:
        return float(choices_of(paths.PROBES.joinpath(*folders))["cv_auroc"])

    dense = max(points, key=lambda point: cv_auroc("dense", point, "dense"))
    point, variant = max(
        ((point, variant) for point in points for variant in variants),
        key=lambda item: cv_auroc("sae", *item, "sae"),
    )
    arm = f"sae_{variant}"
    balanced = results["balanced"]
    reconstruction = read_json(paths.METRICS / "sae" / point / f"{variant}.json")["held_out"]
    without = {
        name.removeprefix("without_"): by_point for name, by_point in results.items() if name.startswith("without_")
    }

    def mean_without(at: str, of: str) -> float | None:
        values = [by_point[at][of]["auroc"] for by_point in without.values()]
        return sum(values) / len(values) if values else None

    return {
        "tfidf_auroc": balanced["text"]["tfidf"]["auroc"],
        "dense_point": dense,
        "dense_auroc": balanced[dense]["dense"]["auroc"],
        "sae_point": point,
        "sae_variant": variant,
        "sae_auroc": balanced[point][arm]["auroc"],
        "sae_minus_dense": evaluation.difference((point, arm), (dense, "dense")),
        "sae_minus_attention": balanced[point][arm]["minus_attention"],
        "sae_minus_untrained": balanced[point][arm]["minus_untrained"],
        "dense_minus_tfidf": balanced[dense]["dense"]["minus_tfidf"],
        "sae_minus_tfidf": balanced[point][arm]["minus_tfidf"],
        "left_out_sources": {
            "sources": len(without),
            "tfidf_auroc": mean_without("text", "tfidf"),
            "dense_auroc": mean_without(dense, "dense"),
            "sae_auroc": mean_without(point, arm),
        },
        "sae_fvu": reconstruction["fvu"],
        "sae_l0": reconstruction["l0"],
        "sae_dead_fraction": reconstruction["dead_fraction"],
        **evaluation.counts(),
        "warnings": evaluation.warnings(),
    }


if __name__ == "__main__":
    run_stage(main, __doc__)
