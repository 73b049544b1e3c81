"""The three figures of the prompt set: who it comes from, how long it is, and both together."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.report.plots import OF_PROMPTS, Plot
from pipeline.report.style import HEAT_MAP, PALETTE, describe, in_lines, save_figure


def draw_counts(path: Path, counts: np.ndarray, sources: list[str], clusters: list[str]) -> None:
    """Prompts by source and cluster; counts (sources, clusters)."""
    _draw_matrix(path, counts, sources, clusters, OF_PROMPTS["source_by_cluster"])


def draw_mean_lengths(path: Path, lengths: np.ndarray, sources: list[str], clusters: list[str]) -> None:
    """Mean prompt length in characters by source and cluster; NaN where there is no prompt."""
    _draw_matrix(path, lengths, sources, clusters, OF_PROMPTS["mean_length"])


def draw_lengths(path: Path, edges: np.ndarray, counts: np.ndarray, median: float, min_chars: int) -> None:
    """The distribution of prompt lengths: counts (bins) between edges (bins + 1), in characters."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=PALETTE[5])
        axes.axvline(median, color=PALETTE[0], label=f"median: {median:,.0f} characters")
        axes.axvline(min_chars, color=PALETTE[1], linestyle="--", label=f"filter.min_chars = {min_chars}")
        axes.set_xscale("log")
        describe(axes, OF_PROMPTS["prompt_length"])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=False)

    save_figure(path, draw)


def _draw_matrix(path: Path, values: np.ndarray, sources: list[str], clusters: list[str], plot: Plot) -> None:
    def draw(axes: Axes) -> None:
        image = axes.imshow(values, cmap=HEAT_MAP, aspect="auto")
        axes.figure.colorbar(image, ax=axes, label=plot.y_label)
        axes.set_xticks(range(len(clusters)), [in_lines(name, 13) for name in clusters], fontsize=8, parse_math=False)
        axes.set_yticks(range(len(sources)), [in_lines(name) for name in sources], fontsize=8, parse_math=False)
        axes.set(xlabel=plot.x_label, ylabel="source", title=plot.title)
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "black" if value > middle else "white"
                axes.text(column, row, f"{value:,.0f}", ha="center", va="center", color=colour, fontsize=8)

    save_figure(path, draw, width=9.0, height=2.2 + 0.6 * max(len(sources), 2))
