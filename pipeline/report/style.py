"""One look for all figures: sizes, a colour-blind safe palette, and how they are saved."""

import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.core.files import replacing
from pipeline.core.text import label
from pipeline.report.plots import Plot

# Okabe & Ito 2008, "Color Universal Design", without its yellow, which is too pale for lines on white
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
HEAT_MAP = "cividis"
LINE_STYLES = ["-", "--", ":", "-."]
RASTER_DPI = 150


def save_figure(path: Path, draw: Callable[[Axes], object], width: float = 7.0, height: float = 4.5) -> None:
    """Make a figure of one axes (size in inches), let `draw` fill it, and write it as a PNG.

    The same data gives the same bytes: no date or version is written.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in Chinese: boxes, in the figure alone
        figure.savefig(temporary, format="png", dpi=RASTER_DPI, metadata={"Software": None})


def describe(axes: Axes, plot: Plot) -> None:
    """Write the plot's title, and at its axes what they are."""
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label, title=plot.title)


def in_lines(name: str, width: int = 32) -> str:
    """A name of whatever length for a figure: lines of `width` characters, three at most."""
    return textwrap.fill(label(name, 3 * width), width, max_lines=3, placeholder="…")


def line_look(index: int) -> dict[str, str]:
    """Colour and line style of the index-th line: told apart by both."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)],
    }
