"""Stage download: prompts from the sample generator, the hub or a file, checked and given stable ids."""

from pathlib import Path

import pyarrow as pa

from pipeline.core.files import write_metrics, write_table
from pipeline.params.base import read
from pipeline.params.data import DataParams
from pipeline.prompts.local import load_local_prompts
from pipeline.prompts.raw import to_raw_table
from pipeline.prompts.sample import sample_prompts
from pipeline.stages import paths
from pipeline.stages.run import run_stage

OWN_COLUMNS = {"prompt": "prompt", "source": "source", "cluster": "cluster"}


def main() -> None:
    data = read("data", DataParams)
    seed = read("seed", int)
    table, origin, commit = _load(data, seed)
    raw = to_raw_table(
        table,
        OWN_COLUMNS if data.source == "sample" else data.columns.model_dump(),
        len(data.clusters),
        data.max_prompt_chars,
        data.extra_columns,
        origin,
    )
    benign = _benign(Path(data.benign), data.max_prompt_chars)
    write_table(paths.RAW_PROMPTS, raw)
    write_table(paths.RAW_BENIGN, benign)
    write_metrics(
        paths.METRICS / "download.json",
        {
            "source": data.source,
            "origin": origin,
            "commit": commit,
            "rows": raw.num_rows,
            "benign_rows": benign.num_rows,
            "rows_by_cluster": {
                name: raw["cluster"].to_pylist().count(cluster) for cluster, name in enumerate(data.clusters)
            },
        },
    )


def _benign(path: Path, max_prompt_chars: int) -> pa.Table:
    """Return the harmless prompts: columns prompt_id, prompt, source."""
    table = load_local_prompts(path, ["prompt", "source"], "data.benign")
    table = table.select([place for place, name in enumerate(table.column_names) if name != "cluster"])
    table = table.append_column("cluster", pa.array([0] * table.num_rows))
    return to_raw_table(table, OWN_COLUMNS, 1, max_prompt_chars, "drop", path.name).drop_columns("cluster")


def _load(data: DataParams, seed: int) -> tuple[pa.Table, str, str | None]:
    """Return the source's table, what messages call it, and its commit if it has one."""
    if data.source == "sample":
        return sample_prompts(data.sample_rows, seed), "sample", None
    columns = data.columns.model_dump().values()
    if data.source == "local":
        return load_local_prompts(Path(data.path), columns), Path(data.path).name, None
    from pipeline.core.hub import resolve_commit  # not at the top: other sources need no network
    from pipeline.prompts.hub import load_hub_prompts

    commit = resolve_commit(data.repo, data.revision, "dataset")
    return load_hub_prompts(data.repo, commit, data.split, columns), data.repo, commit


if __name__ == "__main__":
    run_stage(main, __doc__)
