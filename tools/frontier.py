"""The FVU-L0 frontier of all experiments: how much of the activations each SAE leaves unexplained, and with how many
latents a token. It reads `dvc exp show`, so the experiments of runs/sae-sweep.sh and any others count.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pipeline.core.cli import exit_on_user_error
from pipeline.core.errors import UserError
from pipeline.core.files import write_rows
from pipeline.report.plots import OF_SAE
from pipeline.report.style import describe, line_look, save_figure
from pipeline.stages import paths

METRICS = f"{paths.METRICS}/sae/"


@dataclass(frozen=True, order=True)
class Trained:
    """One SAE of one experiment, measured on held-out prompts."""

    point: str
    variant: str
    width: int
    l0: float
    fvu: float
    dead_fraction: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Beside the picture goes a .csv of the same name with its figures.",
    )
    parser.add_argument("--out", type=Path, default=paths.FIGURES / "fvu_l0.png", help="default: %(default)s")
    out = parser.parse_args().out

    def run() -> None:
        saes = sorted(set(experiments(_show())))
        if not saes:
            raise UserError("no experiment or commit has SAE metrics: run 'dvc repro', or runs/sae-sweep.sh")
        draw_frontier(out, saes)
        write_rows(out.with_suffix(".csv"), [field.name for field in fields(Trained)], map(asdict, saes))
        print(f"{len(saes)} SAEs: {out}")

    exit_on_user_error(run)


def experiments(shown: list[dict[str, Any]]) -> Iterator[Trained]:
    """The SAEs in what `dvc exp show --json` prints: of the workspace, of commits, and of experiments."""
    for baseline in shown:
        revisions = [baseline]
        for experiment in baseline.get("experiments") or []:
            revisions += experiment.get("revs") or []
        for revision in revisions:
            data = revision.get("data") or {}
            params = ((data.get("params") or {}).get("params.yaml") or {}).get("data") or {}
            for path, metrics in (data.get("metrics") or {}).items():
                held_out = (metrics.get("data") or {}).get("held_out")
                if not path.startswith(METRICS) or not held_out:
                    continue
                point, variant = Path(path).parent.name, Path(path).stem
                width = _width(params.get("sae", {}), variant)
                if width is not None:
                    yield Trained(point, variant, width, *(held_out[name] for name in ("l0", "fvu", "dead_fraction")))


def _width(sae: dict[str, Any], variant: str) -> int | None:
    """How many latents a variant has, of the section `sae`; None when that is not said, as for a pretrained one."""
    own = sae.get("variants", {}).get(variant)
    known = own and own.get("architecture") != "pretrained"
    return own.get("width", sae.get("width")) if known else None


def draw_frontier(path: Path, saes: list[Trained]) -> None:
    """One line for each point, variant and width, over L0."""
    lines = defaultdict(list)
    for sae in saes:
        lines[f"{sae.point} {sae.variant}, {sae.width} latents"].append((sae.l0, sae.fvu))

    def draw(axes: Axes) -> None:
        for index, (name, found) in enumerate(lines.items()):
            axes.plot(*zip(*sorted(found), strict=True), marker="o", label=name, **line_look(index))  # type: ignore[arg-type]
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        describe(axes, OF_SAE["sae_frontier"])
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)

    save_figure(path, draw, height=5.5)


def _show() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "show", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"'dvc exp show' failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}")
    shown: list[dict[str, Any]] = json.loads(done.stdout)
    return shown


if __name__ == "__main__":
    main()
