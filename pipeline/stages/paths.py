"""Where the stages leave their files, relative to the project's root (see dvc.yaml)."""

import os
from collections.abc import Sequence
from pathlib import Path

PARAMS_ARE_VALID = Path("data/params_are_valid.txt")
RAW_PROMPTS = Path("data/raw/prompts.parquet")
RAW_BENIGN = Path("data/raw/benign.parquet")
PROMPTS = Path("data/prompts.parquet")
BENIGN = Path("data/benign.parquet")
SPLITS = Path("data/splits.parquet")
TINY_MODEL = Path("models/tiny")
TINY_UNQUANTISED = TINY_MODEL / "unquantised"
MODEL_LOCK = Path("models/model.lock.json")
POINTS = Path("models/points.json")
ACTIVATIONS = Path("data/activations")
SAES = Path("models/sae")
TRAINED_ON = "trained_on.parquet"  # in an SAE's folder: the ids of the prompts that it has seen
PROBES = Path("models/probes")
SCORES = Path("data/scores")
SCORES_OF_ALL_POINTS = SCORES / "points.parquet"
STACKED_SCORES = SCORES / "stacked.parquet"
ALL_POINTS = "all"  # no name of a point
LATENTS = Path("data/latents")
METRICS = Path("metrics")
PLOTS = METRICS / "plots"
REPORT = Path("report")
BROWSE = REPORT / "browse"
FIGURES = REPORT / "figures"
SAE_FIGURES = FIGURES / "sae"


def sae(point: str, variant: str, seed: int, seeds: Sequence[int]) -> Path:
    """Return the folder of an SAE: that of the first seed is where SAELens's users look, the others are inside it."""
    first = SAES / point / variant
    return first if seed == seeds[0] else first / f"seed_{seed}"


def probes(point: str, variant: str = "") -> Path:
    """The classifiers on the activations at a point, or on the latents of a variant there, a folder each."""
    return PROBES / "sae" / point / variant if variant else PROBES / "dense" / point


def stacked_probes(points: Sequence[str], variant: str = "") -> Path:
    """The classifiers on the logits of others, at one point or on all of them."""
    at = points[0] if len(points) == 1 else ALL_POINTS
    return PROBES / "stacked" / ("sae" if variant else "dense") / at / variant


def scores(points: Sequence[str], variants: Sequence[str]) -> list[Path]:
    """The scores of all arms, in the order in which they are told.

    Of texts, point by point, at all points side by side, of arms put together.
    """
    return [*scores_of_parts(points, variants), SCORES_OF_ALL_POINTS, STACKED_SCORES]


def scores_of_parts(points: Sequence[str], variants: Sequence[str]) -> list[Path]:
    """The scores of the arms that others are not needed for."""
    files = [SCORES / "text.parquet"]
    for point in points:
        files += [SCORES / "dense" / f"{point}.parquet"]
        files += [SCORES / "sae" / point / f"{variant}.parquet" for variant in variants]
    return files


def unfinished(output: Path) -> Path:
    """Return where a long stage keeps the finished pieces of its `output` until all of them are there.

    That is in DVC's own temporary folder. DVC_ROOT is the main repository also for experiments that run in a copy
    (--temp, --queue), so these go on where they were stopped. Without DVC it is beside the output.
    """
    dvc = Path(os.environ.get("DVC_ROOT", "."), ".dvc")
    return dvc / "tmp/unfinished" / output.name if dvc.is_dir() else output.with_name(f".{output.name}.unfinished")
