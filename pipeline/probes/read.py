"""What the probes' stages and the judge read of earlier stages."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import read_json, read_table
from pipeline.params.probe import ProbeParams
from pipeline.probes.task import Prompts, read_prompts
from pipeline.stages import paths


def prompts_of(params: ProbeParams, seed: int) -> Prompts:
    """All prompts, as the split of this seed divides them."""
    return read_prompts(
        read_table(paths.PROMPTS),
        read_table(paths.SPLITS),
        read_table(paths.BENIGN),
        target=params.target,
        seed=seed,
    )


def stability_of(folder: Path, latents: int) -> np.ndarray:
    """The share of resamples in which the k-sparse probe in `folder` chooses each latent, float64 (L), 0 where rare.

    All 0 when there is no such probe, since the SAE has fewer latents.
    """
    stability = np.zeros(latents)
    if folder.is_dir():
        for latent, share in choices_of(folder)["stability"]["chosen"].items():
            stability[int(latent)] = share
    return stability


def choices_of(folder: Path) -> dict[str, Any]:
    """What cross-validation chose for a classifier."""
    return dict(read_json(folder / "probe.json"))
