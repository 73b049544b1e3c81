"""The figures of one sparse autoencoder: its training, the use of its latents, and what removing things does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.report.plots import OF_SAE
from pipeline.report.style import PALETTE, describe, in_lines, line_look, save_figure

DENSE, ULTRA_LOW = 0.1, 1e-4  # shares of the tokens from which, and below which, a latent is called so
KINDS = {"dead": PALETTE[6], "ultra-low": PALETTE[3], "normal": PALETTE[0], "high": PALETTE[1]}
Rows = Sequence[Mapping[str, str]]  # of a .csv in metrics/plots


def kind_of(density: str) -> str:
    """What a bin of the density histogram is called, by its lower end."""
    if density == "dead":
        return "dead"
    low = float(density)
    return "ultra-low" if low < ULTRA_LOW else "high" if low >= DENSE else "normal"


def draw_training(path: Path, rows: Rows) -> None:
    """FVU and the share of dead latents over steps."""

    def draw(axes: Axes) -> None:
        steps = [int(row["step"]) for row in rows]
        for index, (column, label) in enumerate({"fvu": "FVU", "dead_fraction": "dead latents (share)"}.items()):
            axes.plot(steps, [float(row[column]) for row in rows], label=label, **line_look(index))  # type: ignore[arg-type]
        describe(axes, OF_SAE["sae"])
        axes.set_ylim(0, 1.05)
        axes.legend(frameon=False)

    save_figure(path, draw)


def draw_density(path: Path, rows: Rows) -> None:
    """How many latents are active on how large a share of the tokens, coloured by kind."""

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            axes.bar(number, int(row["latents"]), color=KINDS[kind_of(row["density"])], width=0.9)
        axes.set_xticks(range(len(rows)), [row["density"] for row in rows], rotation=60, fontsize=8)
        for kind, colour in KINDS.items():
            axes.bar(0, 0, color=colour, label=kind)
        describe(axes, OF_SAE["sae_density"])
        axes.legend(frameon=False)

    save_figure(path, draw)


def draw_cosine(path: Path, rows: Rows) -> None:
    """Mean cosine of encoder and decoder direction over density."""

    def draw(axes: Axes) -> None:
        used = [(number, row) for number, row in enumerate(rows) if int(row["latents"])]
        axes.plot(
            [number for number, _ in used],
            [float(row["encoder_decoder_cosine"]) for _, row in used],
            "o-",
            color=PALETTE[0],
        )
        axes.set_xticks(range(len(rows)), [row["density"] for row in rows], rotation=60, fontsize=8)
        describe(axes, OF_SAE["sae_cosine"])

    save_figure(path, draw)


def draw_l0(path: Path, rows: Rows) -> None:
    """Active latents per token, as quantiles over tokens."""

    def draw(axes: Axes) -> None:
        plot = OF_SAE["sae_l0"]
        xs, ys = ([float(row[column]) for row in rows] for column in (plot.x, plot.y))
        axes.plot(xs, ys, color=PALETTE[0])
        describe(axes, plot)

    save_figure(path, draw)


def draw_frontier(path: Path, saes: Mapping[str, Mapping[str, Any]], this: str) -> None:
    """FVU over L0 of all SAEs of this run (held-out metrics by name), one of them marked."""

    def draw(axes: Axes) -> None:
        for name, metrics in saes.items():
            marked = name == this
            axes.plot(
                metrics["l0"],
                metrics["fvu"],
                "D" if marked else "o",
                color=PALETTE[1] if marked else PALETTE[0],
                markersize=8 if marked else 5,
            )
            axes.annotate(
                in_lines(name), (metrics["l0"], metrics["fvu"]), xytext=(6, 4), textcoords="offset points", fontsize=8
            )
        axes.margins(0.25)
        axes.set_ylim(0, 1.2 * max(metrics["fvu"] for metrics in saes.values()))
        describe(axes, OF_SAE["sae_frontier"])

    save_figure(path, draw)


def faithfulness_title(method: str, classifier: str) -> str:
    return f"{method.capitalize()}: logit of the {classifier} classifier on target test prompts"


def order_title(order: str) -> str:
    """What an order of the tokens is called that metrics/interventions has by this name."""
    if order == "random":
        return "random"
    classifier = order.removeprefix("left_out_")
    if classifier != order:
        return f"what the {classifier} classifier loses without each"
    return f"the {order} classifier's contributions"


def draw_faithfulness(path: Path, rows: Rows, method: str, classifier: str) -> None:
    """The mean logit of one classifier over the share of tokens removed, or kept, for each order of the tokens."""

    def draw(axes: Axes) -> None:
        of_this = [row for row in rows if row["method"] == method and row["classifier"] == classifier]
        for index, order in enumerate(dict.fromkeys(row["order"] for row in of_this)):
            points = [row for row in of_this if row["order"] == order]
            axes.plot(
                [100 * float(row["share_of_tokens"]) for row in points],
                [float(row["logit"]) for row in points],
                marker="o",
                markersize=3,
                label=order_title(order),
                **line_look(index),  # type: ignore[arg-type]
            )
        done = "removed" if method == "deletion" else "put back"
        axes.set(
            xlabel=f"tokens {done} (%)",
            ylabel=f"logit of the {classifier} classifier (mean)",
            title=faithfulness_title(method, classifier),
        )
        axes.legend(frameon=False, fontsize=8)

    save_figure(path, draw)
