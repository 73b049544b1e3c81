"""Stage explore: draw what is in the prompt set, as three figures and the data behind them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.files import read_table, write_rows
from pipeline.core.text import labels
from pipeline.params.base import read
from pipeline.prompts.sources import listed, sum_of
from pipeline.report.data_figures import draw_counts, draw_lengths, draw_mean_lengths
from pipeline.stages import paths
from pipeline.stages.run import run_stage

LENGTH_BINS = 40


def main() -> None:
    clusters = labels(read("data.clusters", list[str]))
    min_chars = read("filter.min_chars", int)
    raw = read_table(paths.RAW_PROMPTS)
    lengths = pc.utf8_length(raw["prompt"]).to_numpy()
    sources, source_of = _sources(raw["source"])
    cells = source_of * len(clusters) + raw["cluster"].to_numpy()
    counts, characters = (
        np.bincount(cells, weights, len(sources) * len(clusters)).reshape(-1, len(clusters))
        for weights in (None, lengths)
    )
    means = np.where(counts, characters / np.maximum(counts, 1), np.nan)
    edges = np.unique(np.geomspace(max(lengths.min(), 1), lengths.max() + 1, LENGTH_BINS + 1).round())
    histogram, _ = np.histogram(lengths, edges)

    draw_counts(paths.FIGURES / "source_by_cluster.png", counts, sources, clusters)
    draw_mean_lengths(paths.FIGURES / "mean_length.png", means, sources, clusters)
    draw_lengths(paths.FIGURES / "prompt_length.png", edges, histogram, float(np.median(lengths)), min_chars)

    rounded = np.vectorize(lambda mean: "" if np.isnan(mean) else round(float(mean), 1), otypes=[object])(means)
    for name, column, values in (("source_by_cluster", "prompts", counts), ("mean_length", "characters", rounded)):
        rows = (
            {"source": source, "cluster": cluster, column: value}
            for source, of_clusters in zip(sources, values.tolist(), strict=True)
            for cluster, value in zip(clusters, of_clusters, strict=True)
        )
        write_rows(paths.PLOTS / f"{name}.csv", ("source", "cluster", column), rows)
    bins = ({"characters": int(low), "prompts": count} for low, count in zip(edges[:-1], histogram, strict=True))
    write_rows(paths.PLOTS / "prompt_length.csv", ("characters", "prompts"), bins)


def _sources(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Return names for the figures' rows, one per listed source and one for all others, and the row of each prompt."""
    counted = {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}
    sources, others = listed(counted)
    rows = pc.fill_null(pc.index_in(column, pa.array(sources)), len(sources)).to_numpy()
    return labels([*sources, *sum_of(others)]), rows


if __name__ == "__main__":
    run_stage(main, __doc__)
