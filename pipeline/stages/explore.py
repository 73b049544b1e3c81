"""Stage explore: what is in the prompt set, as three figures and the data behind them."""

import csv
import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.cli import run_stage
from pipeline.files import read_table, write_text
from pipeline.params.base import read
from pipeline.report.data_figures import draw_counts, draw_lengths, draw_mean_lengths

LENGTH_BINS = 40


def main() -> None:
    names = read("data.clusters", list[str])
    min_chars = read("filter.min_chars", int)
    raw = read_table(paths.RAW_PROMPTS)
    lengths = np.array([len(prompt) for prompt in raw["prompt"].to_pylist()])
    source_of, cluster_of = np.array(raw["source"].to_pylist()), raw["cluster"].to_numpy()
    sources = sorted(set(source_of.tolist()))
    cells = [[(source_of == source) & (cluster_of == cluster) for cluster in range(len(names))] for source in sources]
    counts = np.array([[cell.sum() for cell in row] for row in cells])
    means = np.array([[lengths[cell].mean() if cell.any() else np.nan for cell in row] for row in cells])
    edges = np.unique(np.geomspace(max(lengths.min(), 1), lengths.max() + 1, LENGTH_BINS + 1).round())
    histogram, _ = np.histogram(lengths, edges)

    draw_counts(paths.FIGURES / "source_by_cluster.png", counts, sources, names)
    draw_mean_lengths(paths.FIGURES / "mean_length.png", means, sources, names)
    draw_lengths(paths.FIGURES / "prompt_length.png", edges, histogram, float(np.median(lengths)), min_chars)

    pairs = [(source, name) for source in sources for name in names]
    _write("source_by_cluster", ("source", "cluster", "prompts"), zip(pairs, counts.flat, strict=True))
    rounded = ["" if np.isnan(mean) else round(float(mean), 1) for mean in means.flat]
    _write("mean_length", ("source", "cluster", "characters"), zip(pairs, rounded, strict=True))
    spans = [(int(low),) for low in edges[:-1]]
    _write("prompt_length", ("characters", "prompts"), zip(spans, histogram, strict=True))


def _write(name: str, header: tuple[str, ...], rows: Iterable[tuple[tuple[Any, ...], Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *((*key, value) for key, value in rows)])
    write_text(paths.PLOTS / f"{name}.csv", text.getvalue())


if __name__ == "__main__":
    run_stage(main, __doc__)
