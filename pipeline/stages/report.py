"""Stage report: the page that a person opens first, report/index.html, with its figures."""

import csv
from typing import Any

from pipeline import paths
from pipeline.cli import run_stage
from pipeline.files import read_json
from pipeline.params.base import read
from pipeline.report.arm_figures import Curves, draw_arms, draw_curves
from pipeline.report.page import arm_rows, write_index

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
    "precision_recall": (
        "recall",
        "precision",
        {"x": "recall", "y": "precision", "title": "Precision and recall on the balanced test prompts"},
    ),
    "k_frontier": (
        "k",
        "auroc",
        {"x": "features that a classifier may use (k)", "y": "AUROC", "title": "AUROC on k features", "log": True},
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
    confidence = read("evaluate.confidence", float)
    clusters = read("data.clusters", list[str])
    arms = arm_rows(read_json(paths.METRICS / "probes.json")["balanced"])
    draw_arms(paths.FIGURES / "arms.png", arms, confidence)
    for name, (x, y, look) in CURVES.items():
        draw_curves(paths.FIGURES / f"{name}.png", _read_curves(name, x, y), **look)
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
            *({"file": f"{name}.png", "caption": look["title"]} for name, (_, _, look) in CURVES.items()),
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


def _read_curves(name: str, x: str, y: str) -> Curves:
    curves: Curves = {}
    with (paths.PLOTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            arm = f"{row['arm']} @ {row['point']}" if "point" in row else row["arm"]
            xs, ys = curves.setdefault(arm, ([], []))
            xs.append(float(row[x]))
            ys.append(float(row[y]))
    return curves


if __name__ == "__main__":
    run_stage(main, __doc__)
