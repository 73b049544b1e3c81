"""Stage probe_dense: fit the probes on the raw activations at one point."""

from typing import Any

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore
from pipeline.core.files import write_table
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.of_dense import ARMS
from pipeline.probes.fit_arms import fit_arms
from pipeline.probes.inputs import Tokens
from pipeline.prompts.table import Prompts
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage


def main(point: str) -> None:
    params = read("probe", ProbeParams)
    store = ActivationStore(paths.ACTIVATIONS, point)

    def views(prompts: Prompts) -> dict[str, Any]:
        features = pooled(store, prompts.ids, params.poolings, lambda x: {"dense": x})
        return {**features, "tokens": Tokens(store, prompts.ids)}

    folder = paths.probes(point)
    table = fit_arms(
        ARMS, views, params, prompts_of_seeds(params.target, read("seeds", list[int])), points=[point], folder=folder
    )
    write_table(paths.SCORES / "dense" / f"{point}.parquet", table)


if __name__ == "__main__":
    run_stage(main, __doc__, "point")
