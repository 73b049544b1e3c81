"""The stages one after the other on a small configuration: what each leaves for the next, and no leak from test."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from helpers import SMALL, run_stage, sample_rows, write_csv, write_params
from safetensors.torch import load_file, save_file
from scipy.special import expit
from small_run import POINT, VARIANT, run_stages, stages_of

from pipeline.judging.contrasts import CONTRASTS
from pipeline.report.plots import PLOTS

LEARNING = [stage for stage in stages_of(POINT, VARIANT) if stage[0].startswith(("train_", "measure_", "probe_"))]


@pytest.fixture
def flow(small_run: Path) -> Path:
    return small_run


def metrics(folder: Path, name: str) -> Any:
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


def test_counts_agree_from_stage_to_stage(flow: Path) -> None:
    assert metrics(flow, "download")["rows"] == metrics(flow, "filter")["rows"] == 700
    kept, benign = (metrics(flow, "filter")[name] for name in ("kept", "benign_kept"))
    assert sum(metrics(flow, "split")["prompts"].values()) == kept == metrics(flow, "extract")["prompts"] - benign
    assert metrics(flow, "probes")["benign"]["prompts"] == benign > 50
    index = pq.read_table(flow / "data/activations/tokens.parquet")
    assert index.num_rows == metrics(flow, "extract")["tokens_kept"]
    both = [pq.read_table(flow / f"data/{name}.parquet")["prompt_id"].to_pylist() for name in ("prompts", "benign")]
    assert index["prompt_id"].unique().to_pylist() == both[0] + both[1]
    sae = metrics(flow, f"sae/{POINT}/{VARIANT}")
    assert sae["train"]["tokens"] > sae["held_out"]["tokens"] > 0
    assert 0 < sae["held_out"]["fvu"] < 1.5 and sae["train"]["l0"] == pytest.approx(4, abs=0.2)


def test_every_arm_is_judged_on_the_same_test_prompts(flow: Path) -> None:
    arms = metrics(flow, "probes")["balanced"]
    assert set(arms["text"]) == {"tfidf", "length", "length_source", "one_word"}
    of_latents = (
        "sae",
        "sae-l1",
        "sae-binary",
        "dense-and-sae",
        "untrained",
        "reconstruction",
        "residual",
        "random_relu",
    )
    of_dense = ("dense", "attention", "softmax", "multi-max", "rbf", "mlp")
    stacked = ("words-and-sae", "words-dense-and-sae")
    with_sae = {f"{arm}_{VARIANT}" for arm in (*of_latents, *stacked)}
    assert set(arms[POINT]) == {*of_dense, "words-and-dense", *with_sae}
    summary = metrics(flow, "summary")
    for control in ("dense", "attention", "untrained"):
        assert summary[f"sae_minus_{control}"] == arms[POINT][f"sae_{VARIANT}"][f"minus_{control}"]
    assert metrics(flow, "probes")["shuffled"][POINT].keys() == {"dense"}
    assert summary["dense_auroc"] == arms[POINT]["dense"]["auroc"]
    assert summary["sae_minus_dense"] == arms[POINT][f"sae_{VARIANT}"]["minus_dense"]
    for arm in (*arms["text"].values(), *arms[POINT].values()):
        assert arm["auroc_low"] <= arm["auroc"] <= arm["auroc_high"]
        assert {"average_precision", "f1", "accuracy", "brier", "tpr_at_fpr_1%", "calibration_error"} <= arm.keys()
    probes = metrics(flow, "probes")
    sizes = {str(2**power) for power in range(10)}
    assert set(probes["k"][POINT]) == {"neurons", "pca", f"sae_{VARIANT}", f"untrained_{VARIANT}"}
    assert set(probes["k"][POINT][f"sae_{VARIANT}"]) == {k for k in sizes if int(k) <= 64}
    everywhere = {"dense", f"sae_{VARIANT}", f"sae-k16_{VARIANT}"}
    sources = [name for name in probes if name.startswith("without_")]
    assert sources and {
        "scarce_16",
        "noise_20",
        "natural",
        "by_cluster",
        "hard",
        "by_similarity",
        "within_templates",
    } < set(probes)
    for setting in ("scarce_16", "noise_20", *sources):
        assert set(probes[setting]["text"]) == {"tfidf"} and set(probes[setting][POINT]) == everywhere
    assert summary["left_out_sources"]["sources"] == len(sources)
    assert probes["stability"][POINT][VARIANT]["k"] == 16
    assert summary["test_prompts"] == 2 * summary["test_targets"]


def test_scores_are_of_test_prompts_and_out_of_fold_of_the_balanced_train_prompts(flow: Path) -> None:
    splits = {row["prompt_id"]: row["split"] for row in pq.read_table(flow / "data/splits.parquet").to_pylist()}
    learned_from = set()
    for file in sorted((flow / "data/scores").rglob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            assert row["split"] == splits.get(row["prompt_id"], "benign")
            assert row["score"] == pytest.approx(expit(row["logit"]), abs=1e-6)
            assert row["split"] != "train" or row["setting"] == "balanced"
        table = pq.read_table(file, filters=[("split", "==", "train")])
        of_arms: dict[Any, list[str]] = {}
        for row in table.to_pylist():
            of_arms.setdefault((row["arm"], *row["points"], row["variant"], row["k"]), []).append(row["prompt_id"])
        learned_from |= {tuple(ids) for ids in of_arms.values()}
        assert len(of_arms) >= 3 or file.stem == "points", "there is one point"
    assert len(learned_from) == 1, "the same prompts in the same order"
    (ids,) = learned_from
    chosen = json.loads((flow / f"models/probes/dense/{POINT}/dense/probe.json").read_text())
    assert len(set(ids)) == len(ids) == chosen["train_prompts"]


def test_classifiers_whose_c_is_at_its_edge_are_named(flow: Path) -> None:
    found = metrics(flow, "probes")["c_at_edge"]
    files = sorted((flow / "models/probes").rglob("probe.json"))
    chosen = {
        file.parent.relative_to(flow / "models/probes").as_posix(): json.loads(file.read_text()) for file in files
    }
    assert found["classifiers"] == sum("C" in each for each in chosen.values())
    assert found["at_edge"] == [
        name for name, each in chosen.items() if each.get("C_at_edge") and each["cv_auroc"] > 0.6
    ]


def test_what_was_declared_is_tested_in_the_summary(flow: Path) -> None:
    summary, probes = metrics(flow, "summary"), metrics(flow, "probes")
    assert set(summary["contrasts"]) == set(CONTRASTS)
    for name in ("difference", "low", "high", "p_value"):
        of_sae = probes["balanced"][POINT][f"sae_{VARIANT}"]
        assert summary["contrasts"]["sae_minus_dense"][name] == of_sae["minus_dense"][name]
    for each in summary["contrasts"].values():
        assert each["p_value"] <= each["p_holm"] <= 1 and each["verdict"] in ("better", "worse", "not shown")
    best = summary["contrasts"]["sae_minus_best_dense"]["baseline"].removesuffix(f" @ {POINT}")
    folder = flow / f"models/probes/dense/{POINT}"
    aurocs = {
        arm: json.loads((folder / arm / "probe.json").read_text())["cv_auroc"]
        for arm in probes["balanced"][POINT]
        if (folder / arm).is_dir()
    }
    assert aurocs[best] == max(aurocs.values())


def test_what_is_drawn_several_times_shows_its_spread(flow: Path) -> None:
    probes = metrics(flow, "probes")
    for name, column, setting in (("scarcity", "train_prompts", "scarce_16"), ("noise", "percent_flipped", "noise_20")):
        with (flow / f"metrics/plots/{name}.csv").open() as file:
            rows = {row["arm"]: row for row in csv.DictReader(file)}
        found = probes[setting][POINT]["dense"]
        row = rows[f"dense @ {POINT}"]
        assert row[column] == setting.split("_")[1] and found["draws"] == 2
        assert [float(row[key]) for key in ("auroc", "auroc_std")] == [found["auroc"], found["auroc_std"]]


def test_the_curves_are_those_of_the_metrics(flow: Path) -> None:
    with (flow / "metrics/plots/roc.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == f"dense @ {POINT}"]
    x, y = ([float(row[name]) for row in rows] for name in ("fpr", "tpr"))
    area = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))
    assert area == pytest.approx(metrics(flow, "summary")["dense_auroc"], abs=0.01)


def test_every_plot_shows_columns_that_its_files_have(flow: Path) -> None:
    for name, plot in PLOTS.items():
        files = [flow / f"metrics/plots/{name}.csv", *(flow / f"metrics/plots/{name}").rglob("*.csv")]
        headers = [file.read_text().splitlines()[0].split(",") for file in files if file.is_file()]
        assert bool(headers) == bool(plot.template)
        assert all({plot.x, plot.y} <= set(header) for header in headers)


def test_the_report_holds_the_answer_the_table_and_its_figures(flow: Path) -> None:
    page = (flow / "report/index.html").read_text()
    summary = metrics(flow, "summary")
    assert f"{summary['sae_minus_dense']['difference']:+.3f}" in page
    assert all(name in page for name in ("tfidf", f"dense @ {POINT}", f"sae_{VARIANT} @ {POINT}"))
    figures = re.findall(r'<img src="([^"]+)"', page)
    assert len(figures) == 8
    for figure in figures:
        assert (flow / "report" / figure).read_bytes().startswith(b"\x89PNG")
    assert "https://" not in page and "http://" not in page


def outputs(folder: Path) -> dict[str, bytes]:
    """What training leaves: SAE and probe weights."""
    files = [*(folder / "models/sae").rglob("*.*"), *(folder / "models/probes").rglob("*.*")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()}


def test_nothing_of_a_test_prompt_reaches_the_sae_or_a_probe(flow: Path, tmp_path: Path) -> None:
    """With all test activations and texts replaced by rubbish, every trained weight stays the same, byte by byte."""
    folder = tmp_path / "work"
    shutil.copytree(flow, folder)
    splits = {row["prompt_id"]: row["split"] for row in pq.read_table(folder / "data/splits.parquet").to_pylist()}
    index = pq.read_table(folder / "data/activations/tokens.parquet")["prompt_id"].to_pylist()
    is_test = torch.tensor([splits.get(prompt_id, "benign") != "train" for prompt_id in index])
    assert 0.1 < is_test.float().mean() < 0.4
    shards = sorted((folder / "data/activations" / POINT).glob("0*.safetensors"))
    first = 0
    for shard in shards:
        rows = load_file(shard)["activations"]
        here = is_test[first : first + len(rows)]
        rows[here] = torch.randn(int(here.sum()), rows.shape[1]).half() * 50
        save_file({"activations": rows}, shard)
        first += len(rows)
    assert first == len(is_test)
    prompts = pq.read_table(folder / "data/prompts.parquet")
    texts = [
        "rubbish of a test prompt" if splits[row["prompt_id"]] == "test" else row["prompt"]
        for row in prompts.to_pylist()
    ]
    pq.write_table(prompts.set_column(1, "prompt", [texts]), folder / "data/prompts.parquet")
    scores = {file: file.read_bytes() for file in (folder / "data/scores").rglob("*.parquet")}
    assert pq.read_table(folder / "data/scores/points.parquet").num_rows == 0, "there is one point"
    del scores[folder / "data/scores/points.parquet"]

    run_stages(folder, LEARNING)
    assert outputs(folder) == outputs(flow)
    assert all(file.read_bytes() != before for file, before in scores.items()), "the rubbish should have been scored"


def test_several_seeds_have_splits_and_saes_of_their_own_and_leave_the_first_ones_results(
    flow: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    shutil.copytree(flow, folder)
    write_params(folder, SMALL | {"seeds": [0, 5]})
    run_stage("split", folder)
    run_stages(folder, LEARNING)
    run_stage("evaluate", folder)
    before, after = metrics(flow, "probes"), metrics(folder, "probes")
    spread = after.pop("seeds")
    assert before == after
    assert set(spread[POINT]) == set(before["balanced"][POINT])
    means = {arm: found["auroc_mean"] for arm, found in spread[POINT].items()}
    assert all(found["auroc_std"] > 0 for found in spread[POINT].values())
    assert means["dense"] != before["balanced"][POINT]["dense"]["auroc"]
    splits = pq.read_table(folder / "data/splits.parquet")
    own = folder / f"models/sae/{POINT}/{VARIANT}"
    for seen, side in ((own, "split"), (own / "seed_5", "split_5")):
        train = {row["prompt_id"] for row in splits.to_pylist() if row[side] == "train"}
        assert set(pq.read_table(seen / "trained_on.parquet")["prompt_id"].to_pylist()) == train
    assert (own / "sae_weights.safetensors").read_bytes() != (own / "seed_5/sae_weights.safetensors").read_bytes()
    assert metrics(folder, f"sae/{POINT}/{VARIANT}")["seed_5"].keys() == {"fvu", "l0", "dead_fraction"}


def test_sae_can_be_trained_on_the_target_alone(flow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(flow, folder)
    tokens = {"all": metrics(flow, f"sae/{POINT}/{VARIANT}")["train"]["tokens"]}
    for train_on in ("target", "non_target"):
        write_params(folder, SMALL | {"sae.train_on": train_on})
        run_stage("train_sae", folder, POINT, VARIANT)
        run_stage("measure_sae", folder, POINT, VARIANT)
        tokens[train_on] = metrics(folder, f"sae/{POINT}/{VARIANT}")["train"]["tokens"]
    assert tokens["target"] < tokens["non_target"] < tokens["all"]
    assert tokens["target"] + tokens["non_target"] == pytest.approx(tokens["all"], rel=0.05)


def test_the_embedded_model_is_a_gptq_checkpoint_and_the_same_each_time(tmp_path: Path) -> None:
    changes = {
        "model.source": "tiny",
        "model.tiny": {"layers": 2, "width": 64, "vocabulary": 512, "train_prompts": 1000, "steps": 5},
    }
    locks = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        write_csv(folder / "prompts.csv", sample_rows(500)[::4])
        write_params(folder, SMALL | changes)
        run_stage("fetch_model", folder)
        locks.append((folder / "models/model.lock.json").read_text())
    assert locks[0] == locks[1]
    lock = json.loads(locks[0])
    assert (lock["layers"], lock["width"], lock["quantization"]) == (2, 64, "gptq 4-bit")
    assert "model.layers.0.mlp.down_proj.qweight" in load_file(folder / "models/tiny/model.safetensors")
    model = metrics(folder, "model")
    assert 1 < model["perplexity_before_quantisation"] < 512
    assert model["perplexity"] == pytest.approx(model["perplexity_before_quantisation"], rel=0.2)
    run_stage("download", folder)
    run_stage("filter", folder)
    run_stage("extract", folder)
    assert metrics(folder, "extract")["tokens_kept"] > 500
