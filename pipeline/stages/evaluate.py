"""Stage evaluate: the one judge of all arms' scores, with intervals and paired differences."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline import paths
from pipeline.cli import run_stage
from pipeline.files import read_json, read_table, write_metrics, write_text
from pipeline.params.base import read
from pipeline.params.probe import EvaluateParams, ProbeParams
from pipeline.probes.judge import Judge, Truth
from pipeline.probes.results import read_task

Arms = dict[str, dict[str, np.ndarray]]  # point -> arm -> scores (N)


def main() -> None:
    seed = read("seed", int)
    probe = read("probe", ProbeParams)
    points, variants = read("extract.points", list[str]), read("sae.train", list[str])
    evaluate = read("evaluate", EvaluateParams)
    _remove_stale(points, variants)
    _, test = read_task(probe, seed)
    judge = Judge(Truth(test.prompt_ids, test.labels, test.groups), **evaluate.model_dump(), seed=seed)
    arms = _read_scores(judge, points, variants)
    baseline = arms["text"]["tfidf"]

    results: dict[str, Any] = {
        point: {arm: judge.metrics(scores) for arm, scores in by_arm.items()} for point, by_arm in arms.items()
    }
    for point in points:
        for variant in variants:
            results[point][f"sae_{variant}"]["minus_dense"] = judge.difference(
                arms[point][f"sae_{variant}"], arms[point]["dense"]
            )
        for arm in ("dense", *(f"sae_{variant}" for variant in variants)):
            results[point][arm]["minus_tfidf"] = judge.difference(arms[point][arm], baseline)
    write_metrics(paths.METRICS / "probes.json", {"balanced": results})
    write_metrics(
        paths.METRICS / "summary.json",
        _summary(judge, arms, results, points, variants) | _counts(test.labels),
    )
    _write_curve("roc", ("fpr", "tpr"), {_name(p, a): judge.roc(s) for p, by in arms.items() for a, s in by.items()})
    _write_curve(
        "precision_recall",
        ("recall", "precision"),
        {_name(p, a): judge.precision_recall(s) for p, by in arms.items() for a, s in by.items()},
    )


def _remove_stale(points: list[str], variants: list[str]) -> None:
    """Remove what earlier parameters left of points and variants that are no longer asked for.

    No stage owns those files any more, but they lie in folders that this stage depends on, or in git's, so they
    would tell two equal runs apart.
    """
    by_point = [paths.SCORES / "dense", paths.PROBES / "dense"]
    by_point_and_variant = [folder / "sae" for folder in (paths.SCORES, paths.PROBES, paths.METRICS, paths.PLOTS)]
    for folder in by_point + by_point_and_variant:
        _keep(folder, points)
    for folder in by_point_and_variant:
        for point in points:
            _keep(folder / point, variants)


def _keep(folder: Path, names: list[str]) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in names or (entry.is_file() and entry.stem in names):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _read_scores(judge: Judge, points: list[str], variants: list[str]) -> Arms:
    """The scores of every arm that params.yaml asks for."""
    files = [paths.SCORES / "text.parquet"]
    files += [paths.SCORES / "dense" / f"{point}.parquet" for point in points]
    files += [paths.SCORES / "sae" / point / f"{variant}.parquet" for point in points for variant in variants]
    arms: Arms = {}
    for file in files:
        table = read_table(file)
        for point, arm in sorted(set(zip(table["point"].to_pylist(), table["arm"].to_pylist(), strict=True))):
            rows = table.filter((pc.field("point") == point) & (pc.field("arm") == arm))
            arms.setdefault(point, {})[arm] = judge.aligned(rows)
    return arms


def _summary(
    judge: Judge, arms: Arms, results: dict[str, Any], points: list[str], variants: list[str]
) -> dict[str, Any]:
    """The headline: the best dense and the best SAE probe by cross-validation inside train, and their difference."""

    def cv_auroc(*folders: str) -> float:
        return float(read_json(paths.PROBES.joinpath(*folders) / "probe.json")["cv_auroc"])

    dense = max(points, key=lambda point: cv_auroc("dense", point, "dense"))
    sae = max(
        ((point, variant) for point in points for variant in variants),
        key=lambda item: cv_auroc("sae", *item),
    )
    sae_arm = f"sae_{sae[1]}"
    reconstruction = read_json(paths.METRICS / "sae" / sae[0] / f"{sae[1]}.json")["held_out"]
    return {
        "tfidf_auroc": results["text"]["tfidf"]["auroc"],
        "dense_point": dense,
        "dense_auroc": results[dense]["dense"]["auroc"],
        "sae_point": sae[0],
        "sae_variant": sae[1],
        "sae_auroc": results[sae[0]][sae_arm]["auroc"],
        "sae_minus_dense": judge.difference(arms[sae[0]][sae_arm], arms[dense]["dense"]),
        "dense_minus_tfidf": results[dense]["dense"]["minus_tfidf"],
        "sae_minus_tfidf": results[sae[0]][sae_arm]["minus_tfidf"],
        "sae_fvu": reconstruction["fvu"],
        "sae_l0": reconstruction["l0"],
        "sae_dead_fraction": reconstruction["dead_fraction"],
    }


def _counts(labels: np.ndarray) -> dict[str, int]:
    return {"test_prompts": len(labels), "test_targets": int(labels.sum())}


def _name(point: str, arm: str) -> str:
    return arm if point == "text" else f"{arm} @ {point}"


def _write_curve(name: str, columns: tuple[str, str], curves: dict[str, list[dict[str, float]]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("arm", *columns), lineterminator="\n")
    writer.writeheader()
    for arm, rows in curves.items():
        writer.writerows({"arm": arm} | row for row in rows)
    write_text(paths.PLOTS / f"{name}.csv", text.getvalue())


if __name__ == "__main__":
    run_stage(main, __doc__)
