"""Stage report: the page that a person opens first, report/index.html, with its figures."""

import csv

from pipeline import paths
from pipeline.cli import run_stage
from pipeline.files import read_json
from pipeline.params.base import read
from pipeline.report.arm_figures import Curves, draw_arms, draw_precision_recall, draw_roc
from pipeline.report.page import arm_rows, write_index


def main() -> None:
    confidence = read("evaluate.confidence", float)
    clusters = read("data.clusters", list[str])
    arms = arm_rows(read_json(paths.METRICS / "probes.json")["balanced"])
    draw_arms(paths.FIGURES / "arms.png", arms, confidence)
    draw_roc(paths.FIGURES / "roc.png", _read_curves("roc"))
    draw_precision_recall(paths.FIGURES / "precision_recall.png", _read_curves("precision_recall"))
    write_index(
        paths.REPORT / "index.html",
        target=clusters[read("probe.target", int)],
        confidence=confidence,
        arms=arms,
        **{
            name: read_json(paths.METRICS / f"{name}.json")
            for name in ("summary", "filter", "split", "model", "extract")
        },
        arm_figures=[
            {"file": "arms.png", "caption": "AUROC of every arm, with its interval"},
            {"file": "roc.png", "caption": "ROC curves"},
            {"file": "precision_recall.png", "caption": "Precision-recall curves"},
        ],
        data_figures=[
            {"file": "source_by_cluster.png", "caption": "Prompts by source and cluster, before the filter"},
            {
                "file": "prompt_length.png",
                "caption": "Prompt lengths before the filter, with the cut for short ones",
            },
            {
                "file": "mean_length.png",
                "caption": "Mean prompt length by source and cluster, before the filter",
            },
        ],
    )


def _read_curves(name: str) -> Curves:
    curves: Curves = {}
    with (paths.PLOTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            arm, *pair = row.values()
            xs, ys = curves.setdefault(arm, ([], []))
            xs.append(float(pair[0]))
            ys.append(float(pair[1]))
    return curves


if __name__ == "__main__":
    run_stage(main, __doc__)
