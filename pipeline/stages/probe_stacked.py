"""Stage probe_stacked: fit the classifiers that put words, activations and latents together, on their logits."""

import pyarrow as pa

from pipeline.core.files import write_table
from pipeline.judging.scores import ByArm
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.stacked import Logits, read_logits, stacks
from pipeline.probes.fit_arms import fit_arms
from pipeline.prompts.table import Prompts
from pipeline.stages import paths
from pipeline.stages.clean_up import remove_scores_and_stacks_of_others
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage


def main() -> None:
    params = read("probe", ProbeParams)
    points, variants = sorted(read("extract.points", list[str])), read("sae.train", list[str])  # in no one's order
    prompts_by_seed = prompts_of_seeds(params.target, read("seeds", list[int]))
    files = paths.scores_of_parts(points, variants)
    logits_by_seed = {seed: read_logits(files, prompts) for seed, prompts in prompts_by_seed.items()}

    def views(some: Prompts) -> Logits:
        row_of = {prompt_id: row for row, prompt_id in enumerate(prompts_by_seed[some.seed].ids)}
        rows = [row_of[prompt_id] for prompt_id in some.ids]
        return ByArm((arm, logits[rows]) for arm, logits in logits_by_seed[some.seed].items())

    tables = []
    for together in [[point] for point in points] + [points] * (len(points) > 1):
        for variant in (None, *variants):
            folder = paths.stacked_probes(together, variant or "")
            tables.append(
                fit_arms(
                    stacks(together, variant),
                    views,
                    params,
                    prompts_by_seed,
                    folder=folder,
                    points=together,
                    variant=variant,
                )
            )
    write_table(paths.STACKED_SCORES, pa.concat_tables(tables).unify_dictionaries())
    remove_scores_and_stacks_of_others(points, variants)


if __name__ == "__main__":
    run_stage(main, __doc__)
