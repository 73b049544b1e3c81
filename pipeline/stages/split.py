"""Stage split: divide the prompts into train and test by near-duplicate group."""

from pipeline.core.files import read_table, write_metrics, write_table
from pipeline.params.base import read
from pipeline.params.data import SplitParams
from pipeline.prompts.split import split_prompts
from pipeline.stages import paths
from pipeline.stages.run import run_stage


def main() -> None:
    splits, counts = split_prompts(
        read_table(paths.PROMPTS), **read("split", SplitParams).model_dump(), seeds=read("seeds", list[int])
    )
    write_table(paths.SPLITS, splits)
    write_metrics(paths.METRICS / "split.json", counts)


if __name__ == "__main__":
    run_stage(main, __doc__)
