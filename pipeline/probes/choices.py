"""What is kept of a fitted classifier beside its weights."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import read_json


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
