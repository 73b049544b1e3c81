"""The figures of the comparison: curves of all arms, and their AUROC with intervals."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.report.plots import OF_ARMS, Plot
from pipeline.report.style import PALETTE, describe, in_lines, line_look, save_figure

Curves = dict[str, tuple[list[float], list[float], list[float]]]  # arm -> x, y, spread to both sides of y, if any


def draw_curves(path: Path, curves: Curves, plot: Plot) -> None:
    """One line an arm."""

    def draw(axes: Axes) -> None:
        if plot.diagonal:
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        marker = "o" if plot.is_logarithmic else None
        for index, (arm, (xs, ys, spread)) in enumerate(curves.items()):
            look = line_look(index)
            axes.plot(xs, ys, label=in_lines(arm, 40), linewidth=1.4, marker=marker, markersize=3, **look)  # type: ignore[arg-type]
            if spread:
                below, above = np.subtract(ys, spread), np.add(ys, spread)
                axes.fill_between(xs, below, above, color=look["color"], alpha=0.12, linewidth=0)
        if plot.is_logarithmic:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        if curves:
            axes.legend(frameon=False, fontsize=8)
        describe(axes, plot)

    save_figure(path, draw, height=5.5)


def draw_arms(path: Path, arms: list[dict[str, Any]], confidence: float) -> None:
    """AUROC of the arms (rows with name, auroc, auroc_low, auroc_high), with intervals."""

    names = [in_lines(arm["name"]) for arm in arms]

    def draw(axes: Axes) -> None:
        for row, arm in enumerate(reversed(arms)):
            axes.plot([arm["auroc_low"], arm["auroc_high"]], [row, row], color=PALETTE[5], linewidth=4)
            axes.plot(arm["auroc"], row, "o", color=PALETTE[0])
        axes.axvline(0.5, color="0.7", linewidth=0.8)
        axes.set_yticks(range(len(arms)), reversed(names))
        axes.set(xlabel=f"AUROC with {confidence:.0%} interval", title=OF_ARMS["arms"].title)

    save_figure(path, draw, height=1.5 + 0.35 * len(arms) + 0.2 * "".join(names).count("\n"))
