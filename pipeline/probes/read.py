"""What the probes' stages and the judge read of earlier stages."""

from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.files import read_json, read_table
from pipeline.params.probe import ProbeParams
from pipeline.probes.task import Prompts, read_prompts


def prompts_of(params: ProbeParams, seed: int) -> Prompts:
    """All prompts, as the split of this seed divides them."""
    return read_prompts(
        read_table(paths.PROMPTS),
        read_table(paths.SPLITS),
        read_table(paths.BENIGN),
        target=params.target,
        seed=seed,
    )


def choices_of(folder: Path) -> dict[str, Any]:
    """What cross-validation chose for a classifier."""
    return dict(read_json(folder / "probe.json"))
