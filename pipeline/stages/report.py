"""Stage report: make report/index.html, which a person opens first, and the pages, figures and data it leads to."""

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
from pipeline.report.page import pictures, write_page
from pipeline.report.plots import OF_ARMS, OF_SAE, Plot
from pipeline.report.rows import ablation_rows, arm_rows, faithfulness_rows, sae_description
from pipeline.report.run import what_was_run
from pipeline.report.script_data import write_script
from pipeline.stages import paths
from pipeline.stages.here import run_here
from pipeline.stages.prompts import prompts_of
from pipeline.stages.run import run_stage

METRICS = ("download", "filter", "split", "model", "extract", "summary")  # that pages show figures of
ASSETS = ("style.css", "common.js", "index.js", "latents.js", "prompts.js")


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
    probes = read_json(paths.METRICS / "probes.json")
    arms = arm_rows(probes)
    draw_arms(paths.FIGURES / "arms.png", arms, confidence)
    for name, plot in OF_ARMS.items():
        if plot.template:
            draw_curves(paths.FIGURES / f"{name}.png", _read_curves(name, plot), plot)
    write_page(
        paths.REPORT / "index.html",
        "index.html",
        root="",
        saes=saes,
        target=read("data.clusters", list[str])[read("probe.target", int)],
        confidence=confidence,
        arms=arms,
        within_templates=probes["within_templates"],
        label_noise=probes["label_noise"]["train"],
        summary=metrics["summary"],
        figures=pictures(OF_ARMS),
        run=what_was_run(metrics, read_file(), len(saes)),
    )


def _sae_metrics(sae: Mapping[str, str]) -> Any:
    return read_json(paths.METRICS / "sae" / sae["point"] / f"{sae['variant']}.json")


def _sae_page(sae: dict[str, str], saes: list[dict[str, str]], held_out: Mapping[str, Any]) -> None:
    name = sae["name"]

    def rows(plot: str) -> list[dict[str, str]]:
        return _read_csv(paths.PLOTS / plot / f"{name}.csv")

    folder = paths.SAE_FIGURES / name
    density, curves = rows("sae_density"), rows("interventions")
    sae_figures.draw_training(folder / "sae.png", rows("sae"))
    sae_figures.draw_density(folder / "sae_density.png", density)
    sae_figures.draw_l0(folder / "sae_l0.png", rows("sae_l0"))
    sae_figures.draw_cosine(folder / "sae_cosine.png", density)
    sae_figures.draw_frontier(folder / "sae_frontier.png", held_out, name)
    of_faithfulness = []
    for method in ("deletion", "insertion"):
        for classifier in ("sae", "dense"):
            file = f"{method}_{classifier}.png"
            sae_figures.draw_faithfulness(folder / file, curves, method, classifier)
            caption = sae_figures.faithfulness_title(method, classifier)
            of_faithfulness.append({"file": f"sae/{name}/{file}", "caption": caption})
    interventions = read_json(paths.METRICS / "interventions" / f"{name}.json")
    write_page(
        paths.BROWSE / name / "sae.html",
        "sae.html",
        root="../../../",
        saes=saes,
        name=name,
        description=sae_description(sae["variant"], held_out[name]),
        metrics=_sae_metrics(sae),
        figures=pictures(OF_SAE, f"sae/{name}/"),
        faithfulness=faithfulness_rows(interventions["faithfulness"]),
        faithfulness_figures=of_faithfulness,
        ablation=interventions["ablation"],
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


def _read_curves(name: str, plot: Plot) -> Curves:
    curves: Curves = {}
    for row in _read_csv(paths.PLOTS / f"{name}.csv"):
        arm = shown_name(row["point"], row["arm"]) if "point" in row else row["arm"]
        xs, ys, spread = curves.setdefault(arm, ([], [], []))
        xs.append(float(row[plot.x]))
        ys.append(float(row[plot.y]))
        if plot.spread:
            spread.append(float(row[plot.spread]))
    return curves


if __name__ == "__main__":
    run_stage(main, __doc__)
