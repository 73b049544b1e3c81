"""Stage probe_text: fit the classifiers that read no activations."""

from pipeline.core.files import write_table
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.of_text import ARMS
from pipeline.probes.arms.texts import Texts
from pipeline.probes.fit_arms import fit_arms
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage


def main() -> None:
    params = read("probe", ProbeParams)
    table = fit_arms(
        ARMS,
        Texts,
        params,
        prompts_of_seeds(params.target, read("seeds", list[int])),
        folder=paths.PROBES / "text",
    )
    write_table(paths.SCORES / "text.parquet", table)


if __name__ == "__main__":
    run_stage(main, __doc__)
