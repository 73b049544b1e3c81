"""Stage filter: drop short prompts, duplicates and what exceeds the limit, and count why."""

from pipeline import paths
from pipeline.cli import run_stage
from pipeline.files import read_table, write_metrics, write_table
from pipeline.params.base import read
from pipeline.params.data import FilterParams
from pipeline.prompts.clean import clean


def main() -> None:
    table, counts = clean(
        read_table(paths.RAW_PROMPTS), **read("filter", FilterParams).model_dump(), seed=read("seed", int)
    )
    write_table(paths.PROMPTS, table)
    write_metrics(paths.METRICS / "filter.json", counts)


if __name__ == "__main__":
    run_stage(main, __doc__)
