"""A finished run of all stages on a small configuration, as several tests open it."""

from pathlib import Path

from helpers import SMALL, run_stage, sample_rows, save_small_model, write_csv, write_params

POINT, VARIANT = "resid_post.1", "batch_topk"
OF_SAE = ("train_sae", "measure_sae", "probe_sae", "intervene", "explain")


def make_small_run(folder: Path) -> None:
    write_csv(folder / "prompts.csv", sample_rows(700))
    save_small_model(folder / "lm")
    write_params(folder, SMALL)
    for stage in ("download", "filter", "split", "explore", "fetch_model", "extract", "probe_text"):
        run_stage(stage, folder)
    run_stage("probe_dense", folder, POINT)
    for stage in OF_SAE:
        run_stage(stage, folder, POINT, VARIANT)
    for stage in ("probe_points", "probe_stacked", "evaluate", "report"):
        run_stage(stage, folder)
