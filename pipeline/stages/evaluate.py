"""Stage evaluate: the one judge of all arms' scores, with intervals and paired differences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.files import read_json, write_metrics, write_rows
from pipeline.judging.arm import USUAL_K, ArmId, of_arm
from pipeline.judging.compare import compare
from pipeline.judging.comparisons.balanced import TFIDF, difference
from pipeline.judging.comparisons.curves import CURVES
from pipeline.judging.comparisons.warnings import warnings
from pipeline.judging.contrasts import contrasts
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import read_out_of_fold, read_scores
from pipeline.judging.settings import FULL, WITHOUT, Balancing
from pipeline.params.base import read
from pipeline.params.probe import EvaluateParams, ProbeParams
from pipeline.probes.choices import choices_of
from pipeline.stages import paths
from pipeline.stages.clean_up import remove_left_overs
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage

FOUND = 0.6  # cross-validated AUROC from which C matters; near chance any is as good


def main() -> None:
    params = read("probe", ProbeParams)
    points, variants = read("extract.points", list[str]), read("sae.train", list[str])
    prompts = prompts_of_seeds(params.target, read("seeds", list[int]))
    files, main_seed = paths.scores(points, variants), next(iter(prompts))
    board = Scoreboard(
        read_scores(files, prompts),
        read_out_of_fold(files, prompts, lambda task, arm: task.seed == main_seed and arm.k is None),
        prompts,
        balancing=Balancing.of(params),
        **read("evaluate", EvaluateParams).model_dump(),
    )
    results = compare(board) | {"stability": _stability(points, variants)}
    curves = {name: list(rows(board, results)) for name, (_, rows) in CURVES.items()}
    remove_left_overs(points, variants)  # not before there is something to show for it
    results["c_at_edge"] = _c_at_edge()
    summary = _summary(board, results, points, variants)
    # nothing is written before all of it is known
    write_metrics(paths.METRICS / "probes.json", results)
    write_metrics(paths.METRICS / "summary.json", summary)
    for name, rows in curves.items():
        write_rows(paths.PLOTS / f"{name}.csv", CURVES[name][0], rows)


def _stability(points: Sequence[str], variants: Sequence[str]) -> dict[str, Any]:
    """How much the latents of the k-sparse SAE probes depend on which prompts were drawn."""
    found: dict[str, Any] = {}
    for point in points:
        for variant in variants:
            folder = _classifier(ArmId("sae", (point,), variant, USUAL_K))
            if not folder.is_dir():  # the SAE has fewer latents
                continue
            stability = choices_of(folder)["stability"]
            found.setdefault(point, {})[variant] = {name: stability[name] for name in ("k", "jaccard", "always")}
    return found


def _c_at_edge() -> dict[str, Any]:
    """How many classifiers there are, and those that found something, but with a C at the edge of what may be tried."""
    folders = sorted(file.parent for file in paths.PROBES.rglob("probe.json"))
    chosen = {folder: choices_of(folder) for folder in folders}
    at_edge = [folder for folder, each in chosen.items() if each.get("C_at_edge") and each["cv_auroc"] > FOUND]
    return {
        "classifiers": len(folders),
        "at_edge": [folder.relative_to(paths.PROBES).as_posix() for folder in at_edge],
    }


def _dense_at(board: Scoreboard, point: str) -> dict[ArmId, float]:
    """Cross-validated AUROC of the arms on all features that stage probe_dense fits at a point, whichever they are."""
    arms = [arm for arm, _ in board.whole_arms() if arm.points == (point,) and arm.variant is None]
    folders = {arm: _classifier(arm) for arm in arms}  # of stacked arms there is none here
    return {arm: float(choices_of(folder)["cv_auroc"]) for arm, folder in folders.items() if folder.is_dir()}


def _classifier(arm: ArmId) -> Path:
    """The folder of the classifier of an arm on one point."""
    return paths.probes(arm.points[0], arm.variant or "") / arm.classifier


def _best(arms: Sequence[ArmId]) -> ArmId:
    """By cross-validation inside train."""
    return max(arms, key=lambda arm: float(choices_of(_classifier(arm))["cv_auroc"]))


def _summary(
    board: Scoreboard, results: dict[str, Any], points: Sequence[str], variants: Sequence[str]
) -> dict[str, Any]:
    """The headline: the best dense and the best SAE probe by cross-validation inside train, and their difference."""
    dense = _best([ArmId("dense", (point,)) for point in points])
    sae = _best([ArmId("sae", (point,), variant) for point in points for variant in variants])
    balanced = {name: of_arm(results[FULL], arm) for name, arm in (("tfidf", TFIDF), ("dense", dense), ("sae", sae))}
    held_out = read_json(paths.METRICS / "sae" / sae.points[0] / f"{sae.variant}.json")["held_out"]
    without = [found for setting, found in results.items() if setting.startswith(WITHOUT)]

    def mean_without(arm: ArmId) -> float | None:
        values = [of_arm(found, arm)["auroc"] for found in without]
        return sum(values) / len(values) if values else None

    return {
        "tfidf_auroc": balanced["tfidf"]["auroc"],
        "dense_point": dense.points_key,
        "dense_auroc": balanced["dense"]["auroc"],
        "sae_point": sae.points_key,
        "sae_variant": sae.variant,
        "sae_auroc": balanced["sae"]["auroc"],
        "sae_minus_dense": difference(board, sae, dense),
        "sae_minus_attention": balanced["sae"]["minus_attention"],
        "sae_minus_untrained": balanced["sae"]["minus_untrained"],
        "contrasts": contrasts(board, sae, _dense_at(board, sae.points[0])),
        "dense_minus_tfidf": balanced["dense"]["minus_tfidf"],
        "sae_minus_tfidf": balanced["sae"]["minus_tfidf"],
        "left_out_sources": {
            "sources": len(without),
            "tfidf_auroc": mean_without(TFIDF),
            "dense_auroc": mean_without(dense),
            "sae_auroc": mean_without(sae),
        },
        "sae_fvu": held_out["fvu"],
        "sae_fvu_pca": held_out["other_codes"]["fvu_pca"],
        "sae_l0": held_out["l0"],
        "sae_dead_fraction": held_out["dead_fraction"],
        "test_prompts": len(board.balanced),
        "test_targets": int(board.judge.labels.sum()),
        "test_effective_groups": board.judge.errors.groups,
        "warnings": list(warnings(results)),
    }


if __name__ == "__main__":
    run_stage(main, __doc__)
