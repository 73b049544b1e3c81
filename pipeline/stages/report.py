"""Stage report: report/index.html, which a person opens first, and the pages, figures and data that it leads to."""

import csv
import shutil
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import read_json, read_table, write_text
from pipeline.judging.arm import USUAL_K, ArmId, shown_name
from pipeline.judging.scores import TaskId, read_scores, scored_rows
from pipeline.judging.settings import FULL
from pipeline.params.base import read, read_file
from pipeline.prompts.table import Prompts
from pipeline.report import sae_figures
from pipeline.report.arm_figures import Curves, draw_arms, draw_curves
from pipeline.report.browser import write_latents, write_prompts
from pipeline.report.data_page import data_page
from pipeline.report.page import write_page
from pipeline.report.rows import ablation_rows, arm_rows, faithfulness_rows, sae_description
from pipeline.report.run import what_was_run
from pipeline.report.script_data import write_script
from pipeline.stages import paths
from pipeline.stages.here import run_here
from pipeline.stages.prompts import prompts_of
from pipeline.stages.run import run_stage

METRICS = ("download", "filter", "split", "model", "extract", "summary")  # that pages show figures of
ASSETS = ("style.css", "common.js", "index.js", "latents.js", "prompts.js")
# file in metrics/plots -> columns of x and y, and how it is drawn
CURVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "roc": (
        "fpr",
        "tpr",
        {
            "x": "false positive rate",
            "y": "true positive rate",
            "title": "ROC on the balanced test prompts",
            "diagonal": True,
        },
    ),
    "k_frontier": (
        "k",
        "auroc",
        {"x": "features that a classifier may use (k)", "y": "AUROC", "title": "AUROC on k features", "log": True},
    ),
    "precision_recall": (
        "recall",
        "precision",
        {"x": "recall", "y": "precision", "title": "Precision and recall on the balanced test prompts"},
    ),
    "reliability": (
        "probability",
        "share_of_targets",
        {
            "x": "mean probability in a bin",
            "y": "share of targets",
            "title": "Reliability on the balanced test prompts",
            "diagonal": True,
        },
    ),
    "scarcity": (
        "train_prompts",
        "auroc",
        {"x": "train prompts", "y": "AUROC (mean of draws)", "title": "AUROC with few train prompts", "log": True},
    ),
    "noise": (
        "percent_flipped",
        "auroc",
        {"x": "train labels flipped (%)", "y": "AUROC", "title": "AUROC with wrong train labels"},
    ),
}


def main() -> None:
    points, variants = read("extract.points", list[str]), read("sae.train", list[str])
    saes = [
        {"name": f"{point}/{variant}", "point": point, "variant": variant} for point in points for variant in variants
    ]
    for folder in (paths.BROWSE, paths.SAE_FIGURES):  # a point or variant may have gone
        shutil.rmtree(folder, ignore_errors=True)
    for name in ASSETS:
        write_text(paths.REPORT / "assets" / name, (files("pipeline.report") / "assets" / name).read_text("utf-8"))
    seed = read("seeds", list[int])[0]
    prompts = prompts_of(read("probe.target", int), seed)
    metrics = {name: read_json(paths.METRICS / f"{name}.json") for name in METRICS}
    _front(saes, metrics)
    write_script(paths.REPORT / "data", "here", run_here())
    page = data_page(metrics, prompts, read("data.clusters", list[str]))
    write_page(paths.REPORT / "data.html", "data.html", root="", saes=saes, **page)
    scores = read_scores(paths.scores(points, variants), {seed: prompts}, partial(_is_shown, seed))
    held_out = {sae["name"]: _sae_metrics(sae)["held_out"] for sae in saes}
    for sae in saes:
        _sae_page(sae, saes, held_out)
        _browser_pages(sae, saes, scores[TaskId(FULL, 0, seed)], prompts)


def _is_shown(seed: int, task: TaskId, arm: ArmId) -> bool:
    """Whether the prompt page has the scores of an arm: of those on k features it has one."""
    return task == (FULL, 0, seed) and arm.k in (None, USUAL_K)


def _front(saes: list[dict[str, str]], metrics: Mapping[str, Any]) -> None:
    confidence = read("evaluate.confidence", float)
    arms = arm_rows(read_json(paths.METRICS / "probes.json")["balanced"])
    draw_arms(paths.FIGURES / "arms.png", arms, confidence)
    for name, (x, y, look) in CURVES.items():
        draw_curves(paths.FIGURES / f"{name}.png", _read_curves(name, x, y), **look)
    captions = {name: look["title"] for name, (_, _, look) in CURVES.items()}
    captions["arms"] = "AUROC of every arm, with its interval"
    write_page(
        paths.REPORT / "index.html",
        "index.html",
        root="",
        saes=saes,
        target=read("data.clusters", list[str])[read("probe.target", int)],
        confidence=confidence,
        arms=arms,
        summary=metrics["summary"],
        figures=[{"file": f"{name}.png", "caption": caption} for name, caption in captions.items()],
        run=what_was_run(metrics, read_file(), len(saes)),
    )


def _sae_metrics(sae: Mapping[str, str]) -> Any:
    return read_json(paths.METRICS / "sae" / sae["point"] / f"{sae['variant']}.json")


def _sae_page(sae: dict[str, str], saes: list[dict[str, str]], held_out: Mapping[str, Any]) -> None:
    name = sae["name"]

    def plot(kind: str) -> list[dict[str, str]]:
        return _read_csv(paths.PLOTS / kind / f"{name}.csv")

    folder = paths.SAE_FIGURES / name
    sae_figures.draw_training(folder / "training.png", plot("sae"))
    density, curves = plot("sae_density"), plot("interventions")
    sae_figures.draw_density(folder / "density.png", density)
    sae_figures.draw_l0(folder / "l0.png", plot("sae_l0"))
    sae_figures.draw_cosine(folder / "cosine.png", density)
    sae_figures.draw_frontier(folder / "frontier.png", held_out, name)
    of_figures = {
        "training": "Training: variance left unexplained, and latents that have not been active for long",
        "density": "On how many tokens latents are active; dead, ultra-low, normal and high",
        "l0": "How many latents are active on a token",
        "cosine": "Cosine of encoder and decoder direction, by density",
        "frontier": "Variance left unexplained against active latents, beside the other SAEs of this run",
    }
    of_faithfulness = {}
    for method in ("deletion", "insertion"):
        for classifier in ("sae", "dense"):
            sae_figures.draw_faithfulness(folder / f"{method}_{classifier}.png", curves, method, classifier)
            of_faithfulness[f"{method}_{classifier}"] = f"{method.capitalize()}: logit of the {classifier} classifier"
    interventions = read_json(paths.METRICS / "interventions" / f"{name}.json")
    write_page(
        paths.BROWSE / name / "sae.html",
        "sae.html",
        root="../../../",
        saes=saes,
        name=name,
        description=sae_description(sae["variant"], held_out[name]),
        metrics=_sae_metrics(sae),
        figures=[{"file": f"sae/{name}/{file}.png", "caption": caption} for file, caption in of_figures.items()],
        faithfulness=faithfulness_rows(interventions["faithfulness"]),
        faithfulness_figures=[
            {"file": f"sae/{name}/{file}.png", "caption": caption} for file, caption in of_faithfulness.items()
        ],
        ablation=interventions["ablation"],
        by_chance=2 / (interventions["ablation"]["random_draws"] + 1),
        ablations=ablation_rows(interventions["ablation"]),
    )


def _browser_pages(
    sae: dict[str, str],
    saes: list[dict[str, str]],
    scores: Mapping[ArmId, np.ndarray],
    prompts: Prompts,
) -> None:
    explained, folder = paths.LATENTS / sae["name"], paths.BROWSE / sae["name"]
    meta = read_json(explained / "meta.json")
    write_latents(
        folder / "data", read_table(explained / "latents.parquet"), read_table(explained / "examples.parquet"), meta
    )
    write_prompts(
        folder / "data",
        read_table(explained / "prompts.parquet"),
        read_table(explained / "contributions.parquet"),
        scores,
        [prompts.ids[row] for row in scored_rows(prompts)],
        prompts.text_of,
        meta,
    )
    for page in ("latents.html", "prompts.html"):
        write_page(folder / page, page, root="../../../", saes=saes, name=sae["name"], final_norm=meta["final_norm"])


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_curves(name: str, x: str, y: str) -> Curves:
    curves: Curves = {}
    for row in _read_csv(paths.PLOTS / f"{name}.csv"):
        arm = shown_name(row["point"], row["arm"]) if "point" in row else row["arm"]
        xs, ys = curves.setdefault(arm, ([], []))
        xs.append(float(row[x]))
        ys.append(float(row[y]))
    return curves


if __name__ == "__main__":
    run_stage(main, __doc__)
