"""A finished run of all stages on a small configuration, as several tests open it."""

from collections.abc import Iterable
from pathlib import Path

from helpers import SMALL, run_stage, sample_rows, save_small_model, write_csv, write_params

POINT, VARIANT = "resid_post.1", "batch_topk"
Stage = tuple[str, ...]  # its name, and what it is run on


def stages_of(point: str, variant: str) -> list[Stage]:
    """All stages of a run with one point and one SAE, in an order in which they can run."""
    sae = (point, variant)
    before = ("download", "filter", "split", "explore", "fetch_model", "extract")
    return [
        *((name,) for name in before),
        ("train_sae", *sae),
        ("measure_sae", *sae),
        ("probe_text",),
        ("probe_dense", point),
        ("probe_sae", *sae),
        ("probe_points",),
        ("probe_stacked",),
        ("intervene", *sae),
        ("explain", *sae),
        ("evaluate",),
        ("report",),
    ]


def run_stages(folder: Path, stages: Iterable[Stage]) -> None:
    for name, *items in stages:
        run_stage(name, folder, *items)


def make_small_run(folder: Path) -> None:
    write_csv(folder / "prompts.csv", sample_rows(700))
    save_small_model(folder / "lm")
    write_params(folder, SMALL)
    run_stages(folder, stages_of(POINT, VARIANT))
