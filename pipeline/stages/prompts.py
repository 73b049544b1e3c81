"""Read the table of prompts from the stages' files."""

from collections.abc import Sequence

from pipeline.core.files import read_table
from pipeline.prompts.table import Prompts, read_prompts
from pipeline.stages import paths


def prompts_of(target: int, seed: int) -> Prompts:
    """Return all prompts, as the split of this seed divides them, with the harmless ones."""
    tables = (read_table(path) for path in (paths.PROMPTS, paths.SPLITS, paths.BENIGN))
    return read_prompts(*tables, target=target, seed=seed)


def prompts_of_seeds(target: int, seeds: Sequence[int]) -> dict[int, Prompts]:
    """Return the table of prompts of each seed, in the order of the seeds."""
    return {seed: prompts_of(target, seed) for seed in seeds}
