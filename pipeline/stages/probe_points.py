"""Stage probe_points: fit a linear probe on the raw activations at all points side by side, where there are several."""

from typing import Any

import numpy as np

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore
from pipeline.core.files import write_table
from pipeline.judging.scores import SCORES
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.of_points import ARMS
from pipeline.probes.fit_arms import fit_arms
from pipeline.prompts.table import Prompts
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage


def main() -> None:
    params = read("probe", ProbeParams)
    points = sorted(read("extract.points", list[str]))  # in no one's order
    stores = [ActivationStore(paths.ACTIVATIONS, point) for point in points]

    def views(prompts: Prompts) -> dict[str, Any]:
        parts = [pooled(store, prompts.ids, params.poolings, lambda x: {"dense": x})["dense"] for store in stores]
        return {"dense": {name: np.hstack([part[name] for part in parts]) for name in params.poolings}}

    folder = paths.PROBES / "points"
    folder.mkdir(parents=True, exist_ok=True)
    table = SCORES.empty_table()
    if len(points) > 1:
        prompts_by_seed = prompts_of_seeds(params.target, read("seeds", list[int]))
        table = fit_arms(ARMS, views, params, prompts_by_seed, points=points, folder=folder)
    write_table(paths.SCORES_OF_ALL_POINTS, table)


if __name__ == "__main__":
    run_stage(main, __doc__)
