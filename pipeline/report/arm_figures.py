"""The figures of the comparison: curves of all arms, and their AUROC with intervals."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.report.style import PALETTE, line_look, save_figure

Curves = dict[str, tuple[list[float], list[float]]]  # arm -> x, y


def draw_roc(path: Path, curves: Curves) -> None:
    """ROC curves of the arms."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        _draw_curves(axes, curves)
        axes.set(
            xlabel="false positive rate",
            ylabel="true positive rate",
            title="ROC on the balanced test prompts",
        )

    save_figure(path, draw, height=5.5)


def draw_precision_recall(path: Path, curves: Curves) -> None:
    """Precision-recall curves of the arms."""

    def draw(axes: Axes) -> None:
        _draw_curves(axes, curves)
        axes.set(xlabel="recall", ylabel="precision", title="Precision and recall on the balanced test prompts")

    save_figure(path, draw, height=5.5)


def draw_arms(path: Path, arms: list[dict[str, Any]], confidence: float) -> None:
    """AUROC of the arms (rows with name, auroc, auroc_low, auroc_high), with intervals."""

    def draw(axes: Axes) -> None:
        for row, arm in enumerate(reversed(arms)):
            axes.plot([arm["auroc_low"], arm["auroc_high"]], [row, row], color=PALETTE[5], linewidth=4)
            axes.plot(arm["auroc"], row, "o", color=PALETTE[0])
        axes.axvline(0.5, color="0.7", linewidth=0.8)
        axes.set_yticks(range(len(arms)), [arm["name"] for arm in reversed(arms)])
        axes.set(xlabel=f"AUROC with {confidence:.0%} interval", title="How well each arm detects the target")

    save_figure(path, draw, height=1.5 + 0.35 * len(arms))


def _draw_curves(axes: Axes, curves: Curves) -> None:
    for index, (arm, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, label=arm, linewidth=1.4, **line_look(index))  # type: ignore[arg-type]
    axes.legend(frameon=False, fontsize=8)
