"""The figures of the comparison: curves of all arms, and their AUROC with intervals."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.report.style import PALETTE, in_lines, line_look, save_figure

Curves = dict[str, tuple[list[float], list[float]]]  # arm -> x, y


def draw_curves(
    path: Path, curves: Curves, *, x: str, y: str, title: str, diagonal: bool = False, log: bool = False
) -> None:
    """One line an arm. x, y: what the axes show; diagonal: draw it as well; log: a logarithmic x axis, base 2."""

    def draw(axes: Axes) -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        marker = "o" if log else None
        for index, (arm, (xs, ys)) in enumerate(curves.items()):
            axes.plot(xs, ys, label=in_lines(arm, 40), linewidth=1.4, marker=marker, markersize=3, **line_look(index))  # type: ignore[arg-type]
        if log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        if curves:
            axes.legend(frameon=False, fontsize=8)
        axes.set(xlabel=x, ylabel=y, title=title)

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
        axes.set(xlabel=f"AUROC with {confidence:.0%} interval", title="How well each arm detects the target")

    save_figure(path, draw, height=1.5 + 0.35 * len(arms) + 0.2 * "".join(names).count("\n"))
