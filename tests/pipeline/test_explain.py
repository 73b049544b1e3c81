"""Stage explain: the tables that it writes, of prompts that are hostile among others."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import (
    HOSTILE,
    SMALL,
    run_stage,
    run_stage_error,
    sample_rows,
    save_small_model,
    write_csv,
    write_params,
)
from safetensors.torch import load_file, save_file

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore
from pipeline.sae.model import Sae

POINT, VARIANT = "resid_post.1", "batch_topk"
MAX_TOKENS = 250
CHANGES: dict[str, Any] = {
    "data.path": "prompts.parquet",
    "extract.max_tokens": MAX_TOKENS,
    "probe.noise": [],
    "probe.scarce": [],
}


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages up to explain, on prompts some of which are hostile."""
    folder = tmp_path_factory.mktemp("flow")
    rows = sample_rows(400) + [{"prompt": text, "source": "hostile", "cluster": 3} for text in HOSTILE]
    columns = {name: [row[name] for row in rows] for name in ("prompt", "source", "cluster")}
    pq.write_table(pa.table(columns), folder / "prompts.parquet")
    save_small_model(folder / "lm")
    write_params(folder, SMALL | CHANGES)
    benign = [{"prompt": f"harmless prompt {number}", "source": "hostile"} for number in range(20)]
    write_csv(folder / "data/benign.csv", benign)
    run_stage("download", folder)
    run_stage("filter", folder)
    filtered = pq.read_table(folder / "data/prompts.parquet")
    pq.write_table(filtered.take(list(range(len(filtered)))[::-1]), folder / "data/prompts.parquet")
    for stage in ("split", "fetch_model", "extract"):
        run_stage(stage, folder)
    run_stage("probe_dense", folder, POINT)
    for stage in ("train_sae", "measure_sae", "probe_sae", "explain"):
        run_stage(stage, folder, POINT, VARIANT)
    return folder


def tables(folder: Path) -> Iterator[Any]:
    for name in ("latents", "examples", "prompts"):
        yield pq.read_table(folder / f"data/latents/{POINT}/{VARIANT}/{name}.parquet").to_pylist()


def test_hostile_prompts_go_through_unchanged(flow: Path) -> None:
    *_, prompts = tables(flow)
    given = {name: pq.read_table(flow / f"data/{name}.parquet").to_pylist() for name in ("prompts", "benign")}
    texts = {row["prompt_id"]: row["prompt"] for rows in given.values() for row in rows}
    assert [row["prompt_id"] for row in prompts] == list(texts)
    assert set(HOSTILE) < {"".join(row["tokens"]) for row in prompts}
    for row in prompts:
        joined, text = "".join(row["tokens"]), texts[row["prompt_id"]]
        assert joined == text or (len(row["tokens"]) == MAX_TOKENS and text.startswith(joined))
    assert all(len(row["tokens"]) == len(row["counted"]) for row in prompts)
    sides = {row["prompt_id"]: row["split"] for row in pq.read_table(flow / "data/splits.parquet").to_pylist()}
    assert all(row["side"] == sides.get(row["prompt_id"], "benign") for row in prompts)
    assert all((row["cluster"] == -1) == (row["side"] == "benign") for row in prompts)


def test_the_latents_are_those_of_the_classifier(flow: Path) -> None:
    latents, _, prompts = tables(flow)
    meta = json.loads((flow / f"data/latents/{POINT}/{VARIANT}/meta.json").read_text())
    folder = flow / f"models/probes/sae/{POINT}/{VARIANT}"
    probe = load_file(folder / "sae/probe.safetensors")
    weights = (probe["coefficient"] / probe["scale"]).tolist()
    assert [row["weight"] for row in latents] == pytest.approx(weights, rel=1e-6)
    chosen = json.loads((folder / "sae-k16/probe.json").read_text())["stability"]["chosen"]
    stable = {str(row["latent"]): row["stability"] for row in latents if row["stability"]}
    assert stable == pytest.approx(chosen, rel=1e-6)
    assert meta["bias"]["sae"] == float(probe["intercept"]) and meta["pooling"] == "mean" and meta["final_norm"] is True
    assert meta["counts"]["sources"] == sorted(meta["counts"]["sources"], reverse=True) and "hostile" in meta["sources"]
    assert meta["counts"]["latents"] == len(latents) == 64
    assert meta["counts"]["prompts"]["test"] == sum(row["side"] == "test" for row in prompts)

    sae = Sae.load(flow / f"models/sae/{POINT}/{VARIANT}")
    store = ActivationStore(flow / "data/activations", POINT)
    features = pooled(store, [row["prompt_id"] for row in prompts], ["mean", "max"], lambda x: {"f": sae.encode(x)})
    side, cluster = (np.array([row[name] for row in prompts]) for name in ("side", "cluster"))
    target, other = (side == "test") & (cluster == 3), (side == "test") & (cluster != 3)
    logits = features["f"]["mean"] @ np.array(weights)
    total = sum(row["mean_contribution"] for row in latents)
    assert total == pytest.approx(logits[target].mean() - logits[other].mean(), abs=1e-4)
    active = features["f"]["max"] > 0
    source = np.array([row["source"] for row in prompts])
    counted = np.concatenate([row["counted"] for row in prompts])
    of_train = counted & np.repeat(side == "train", [len(row["counted"]) for row in prompts])
    densities = (sae.encode(store.read(of_train)) > 0).double().mean(dim=0)
    for row in latents:
        here = active[:, row["latent"]]
        assert row["density"] == pytest.approx(float(densities[row["latent"]]))
        assert row["rate_target"] == pytest.approx(here[target].mean())
        assert row["rate_other"] == pytest.approx(here[other].mean())
        assert row["cluster_rates"] == pytest.approx([here[cluster == number].mean() for number in range(6)])
        of_sources = [here[(source == name) & (side != "benign")].mean() for name in meta["sources"]]
        assert row["source_rates"] == pytest.approx(of_sources)
        assert row["max_activation"] == pytest.approx(features["f"]["max"][:, row["latent"]].max(), rel=1e-5)
        assert len(row["neighbours"]) == 5 and len(row["promotes"]) == len(row["suppresses"]) == 8
        assert row["promotes"][0]["value"] > row["promotes"][7]["value"] > 0 > row["suppresses"][0]["value"]


def test_examples_point_into_the_prompts(flow: Path) -> None:
    latents, found, prompts = tables(flow)
    assert {row["kind"] for row in found} == {"top", "quantile"}
    for row in found:
        prompt = prompts[row["prompt"]]
        assert len(row["positions"]) == len(row["values"]) and max(row["values"]) == row["activation"]
        counted = np.array(prompt["counted"])
        assert counted[row["positions"]].all(), prompt
    for latent in latents:
        top = [row for row in found if row["latent"] == latent["latent"] and row["kind"] == "top"]
        assert [row["activation"] for row in top] == sorted((row["activation"] for row in top), reverse=True)
        assert not top or top[0]["activation"] == latent["max_activation"]


def test_contributions_sum_to_the_logits_of_the_scores(flow: Path) -> None:
    explained = flow / f"data/latents/{POINT}/{VARIANT}"
    prompts = pq.read_table(explained / "prompts.parquet").to_pylist()
    bias = json.loads((explained / "meta.json").read_text())["bias"]
    rows = pq.read_table(explained / "contributions.parquet").to_pylist()
    assert len(rows) == sum(row["side"] != "train" for row in prompts)
    for which, file in (("sae", f"sae/{POINT}/{VARIANT}"), ("dense", f"dense/{POINT}")):
        scores = {
            row["prompt_id"]: row["score"]
            for row in pq.read_table(flow / f"data/scores/{file}.parquet").to_pylist()
            if (row["arm"], row["k"], row["setting"]) == (which, None, "balanced") and row["split"] != "train"
        }
        for row in rows:
            logit, prompt = row[f"{which}_logit"], prompts[row["prompt"]]
            assert sum(row[f"{which}_tokens"]) + bias[which] == pytest.approx(logit, abs=1e-9)
            assert len(row[f"{which}_tokens"]) == len(prompt["tokens"])
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(scores[prompt["prompt_id"]], abs=1e-4)


def test_the_latents_that_the_classifier_uses_most_have_more_examples(flow: Path, tmp_path: Path) -> None:
    shutil.copytree(flow, tmp_path / "work")
    with mock.patch("pipeline.stages.explain.MOST_USED", 4):
        run_stage("explain", tmp_path / "work", POINT, VARIANT)
    latents, found, _ = tables(tmp_path / "work")
    by_use = sorted(latents, key=lambda row: -abs(row["mean_contribution"]))
    for place, latent in enumerate(by_use):
        for kind in ("top", "quantile"):
            rows = [row for row in found if row["latent"] == latent["latent"] and row["kind"] == kind]
            assert len(rows) == 10 if place < 4 else len(rows) <= 5


def test_the_stage_writes_the_same_bytes_again(flow: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in (flow / f"data/latents/{POINT}/{VARIANT}").iterdir()}
    shutil.copytree(flow, tmp_path / "work")
    run_stage("explain", tmp_path / "work", POINT, VARIANT)
    after = {file.name: file.read_bytes() for file in (tmp_path / f"work/data/latents/{POINT}/{VARIANT}").iterdir()}
    names = {"latents.parquet", "examples.parquet", "prompts.parquet", "contributions.parquet", "meta.json"}
    assert before == after and set(before) == names


def test_files_that_do_not_belong_together_are_told_in_a_line(flow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(flow, folder)
    prompts = pq.read_table(folder / "data/prompts.parquet")
    pq.write_table(prompts.slice(1), folder / "data/prompts.parquet")
    assert "activations of other prompts" in run_stage_error("explain", folder, POINT, VARIANT)
    changed = prompts.set_column(1, "prompt", [[text[::-1] for text in prompts["prompt"].to_pylist()]])
    pq.write_table(changed, folder / "data/prompts.parquet")
    assert "makes other tokens of prompt" in run_stage_error("explain", folder, POINT, VARIANT)
    pq.write_table(prompts, folder / "data/prompts.parquet")
    file = folder / f"models/probes/sae/{POINT}/{VARIANT}/sae/probe.safetensors"
    save_file({name: tensor[:1].clone() for name, tensor in load_file(file).items()}, file)
    assert "is for 1 features, not 64" in run_stage_error("explain", folder, POINT, VARIANT)
    file.unlink()
    assert "is missing or damaged" in run_stage_error("explain", folder, POINT, VARIANT)
