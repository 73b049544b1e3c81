"""Note how long stages took here, beside DVC's outputs, since times are never the same twice."""

import json
from pathlib import Path

from pipeline.core.files import write_json

DVC = Path(".dvc")
TIMINGS = DVC / "tmp/timings"


def record(stage: str, items: list[str], seconds: float) -> None:
    """Note how long the last run of a stage took, for these items of its matrix. Where DVC is not used, note nothing.

    Making its folder there would make the place look like one that DVC runs in (`pipeline.stages.paths.unfinished`).
    """
    if DVC.is_dir():
        write_json(TIMINGS / f"{'@'.join([stage, *items])}.json", {"seconds": round(seconds, 1)})


def seconds_of(stage: str, items: list[list[str]]) -> list[float]:
    """Return the seconds of the last runs of a stage here with these items, without those that were never run."""
    found = []
    for each in items:
        try:
            found.append(float(json.loads((TIMINGS / f"{'@'.join([stage, *each])}.json").read_text())["seconds"]))
        except (OSError, ValueError, KeyError):
            continue
    return found
