"""Stage filter: drop short prompts, duplicates and what exceeds the limit, and count why."""

from pipeline.core.files import read_table, write_metrics, write_table
from pipeline.params.base import read
from pipeline.params.data import FilterParams
from pipeline.prompts.clean import clean, clean_benign
from pipeline.stages import paths
from pipeline.stages.run import run_stage


def main() -> None:
    params = read("filter", FilterParams)
    table, counts = clean(read_table(paths.RAW_PROMPTS), **params.model_dump(), seed=read("seed", int))
    benign = clean_benign(read_table(paths.RAW_BENIGN), table, params.min_chars)
    write_table(paths.PROMPTS, table)
    write_table(paths.BENIGN, benign)
    write_metrics(paths.METRICS / "filter.json", counts | {"benign_kept": benign.num_rows})


if __name__ == "__main__":
    run_stage(main, __doc__)
