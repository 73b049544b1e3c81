"""The three figures of the prompt set: who it comes from, how long it is, and both together."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.report.style import HEAT_MAP, PALETTE, in_lines, save_figure


def draw_counts(path: Path, counts: np.ndarray, sources: list[str], clusters: list[str]) -> None:
    """Prompts by source and cluster; counts (sources, clusters)."""
    _draw_matrix(path, counts, sources, clusters, "prompts", "{:,.0f}")


def draw_mean_lengths(path: Path, lengths: np.ndarray, sources: list[str], clusters: list[str]) -> None:
    """Mean prompt length in characters by source and cluster; NaN where there is no prompt."""
    _draw_matrix(path, lengths, sources, clusters, "mean length (characters)", "{:,.0f}")


def draw_lengths(path: Path, edges: np.ndarray, counts: np.ndarray, median: float, min_chars: int) -> None:
    """The distribution of prompt lengths: counts (bins) between edges (bins + 1), in characters."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=PALETTE[5])
        axes.axvline(median, color=PALETTE[0], label=f"median: {median:,.0f} characters")
        axes.axvline(min_chars, color=PALETTE[1], linestyle="--", label=f"filter.min_chars = {min_chars}")
        axes.set(xscale="log", xlabel="prompt length (characters)", ylabel="prompts", title="How long prompts are")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=False)

    save_figure(path, draw)


def _draw_matrix(path: Path, values: np.ndarray, sources: list[str], clusters: list[str], unit: str, text: str) -> None:
    def draw(axes: Axes) -> None:
        image = axes.imshow(values, cmap=HEAT_MAP, aspect="auto")
        axes.figure.colorbar(image, ax=axes, label=unit)
        axes.set_xticks(range(len(clusters)), [in_lines(name, 13) for name in clusters], fontsize=8, parse_math=False)
        axes.set_yticks(range(len(sources)), [in_lines(name) for name in sources], fontsize=8, parse_math=False)
        axes.set(xlabel="cluster", ylabel="source", title=f"{unit[0].upper()}{unit[1:]} by source and cluster")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "black" if value > middle else "white"
                axes.text(column, row, text.format(value), ha="center", va="center", color=colour, fontsize=8)

    save_figure(path, draw, width=9.0, height=2.2 + 0.6 * max(len(sources), 2))
