"""Leaks are planted, and caught: by a refusal, by a warning, or by a control."""

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import SMALL, run_stage, run_stage_error, sample_rows, save_small_model, write_csv, write_params
from sklearn.preprocessing import StandardScaler
from small_run import POINT, VARIANT, run_stages, stages_of

from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Arm
from pipeline.probes.arms.dense import ARMS as DENSE
from pipeline.probes.arms.k_sparse import OF_DENSE
from pipeline.probes.fit import Fitting
from pipeline.probes.models import Model
from pipeline.probes.task import Task
from pipeline.prompts.table import Prompts

STAGES = [stage for stage in stages_of(POINT, VARIANT) if stage[0] not in ("explore", "intervene", "explain", "report")]


def run(folder: Path, rows: list[dict[str, Any]], stages: list[tuple[str, ...]] = STAGES, **changes: Any) -> Any:
    """Run the stages on prompts; return metrics/summary.json and metrics/probes.json."""
    folder.mkdir(exist_ok=True)
    write_csv(folder / "prompts.csv", rows)
    if not (folder / "lm").exists():
        save_small_model(folder / "lm")
    write_params(folder, SMALL | changes)
    run_stages(folder, stages)
    return [json.loads((folder / "metrics" / f"{name}.json").read_text()) for name in ("summary", "probes")]


def test_an_honest_run_warns_of_nothing(small_run: Path) -> None:
    assert json.loads((small_run / "metrics/summary.json").read_text())["warnings"] == []


def test_the_order_of_prompts_and_the_names_of_sources_change_nothing(small_run: Path, tmp_path: Path) -> None:
    rows = [row | {"source": f"other {row['source'][::-1]}"} for row in sample_rows(700)]
    random.Random(0).shuffle(rows)
    shutil.copytree(small_run / "lm", tmp_path / "lm")
    _, renamed = run(tmp_path, rows)
    before = json.loads((small_run / "metrics/probes.json").read_text())
    names = {row["source"]: f"other {row['source'][::-1]}" for row in sample_rows(700)}
    for old, new in names.items():
        assert before.pop(f"without_{old}", None) == renamed.pop(f"without_{new}", None)
    assert before == renamed


def test_the_order_of_points_changes_nothing(small_run: Path, tmp_path: Path) -> None:
    found = []
    for name, points in (("one", [POINT, "layer_delta.1"]), ("other", ["layer_delta.1", POINT])):
        folder = tmp_path / name
        shutil.copytree(small_run, folder)
        write_params(folder, SMALL | {"extract.points": points})
        run_stage("extract", folder)
        for point in points:
            run_stage("train_sae", folder, point, VARIANT)
            run_stage("measure_sae", folder, point, VARIANT)
            run_stage("probe_dense", folder, point)
            run_stage("probe_sae", folder, point, VARIANT)
        run_stage("probe_points", folder)
        run_stage("probe_stacked", folder)
        run_stage("evaluate", folder)
        found.append([(folder / "metrics" / f"{file}.json").read_text() for file in ("probes", "summary")])
    assert found[0] == found[1]
    assert set(json.loads(found[0][0])["balanced"][f"layer_delta.1 + {POINT}"]) >= {"dense"}


def test_a_duplicate_on_both_sides_of_the_split_is_refused(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(small_run, folder)
    rows = pq.read_table(folder / "data/splits.parquet").to_pylist()
    sizes: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        sizes.setdefault(row["group"], []).append(number)
    first, *_ = next(numbers for numbers in sizes.values() if len(numbers) > 1)
    rows[first]["split"] = "test" if rows[first]["split"] == "train" else "train"
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/splits.parquet")
    for stage in (("probe_text",), ("probe_dense", POINT), ("evaluate",)):
        assert "on the other side of the split" in run_stage_error(stage[0], folder, *stage[1:])


def test_the_same_text_in_another_group_is_refused_too(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(small_run, folder)
    splits = {row["prompt_id"]: row["split"] for row in pq.read_table(folder / "data/splits.parquet").to_pylist()}
    rows = pq.read_table(folder / "data/prompts.parquet").to_pylist()
    train = next(row for row in rows if splits[row["prompt_id"]] == "train")
    test = next(row for row in rows if splits[row["prompt_id"]] == "test")
    test["prompt"] = train["prompt"]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/prompts.parquet")
    assert "has the text of one on the other side" in run_stage_error("probe_text", folder)


def test_a_token_that_reveals_the_label_is_warned_of(small_run: Path, tmp_path: Path) -> None:
    rows = [row | {"prompt": row["prompt"] + (" zq7" if row["cluster"] == 3 else "")} for row in sample_rows(700)]
    shutil.copytree(small_run, tmp_path / "work")
    summary, probes = run(tmp_path / "work", rows)
    assert any("single word" in warning for warning in summary["warnings"])
    assert probes["balanced"]["text"]["one_word"]["auroc"] > 0.99
    chosen = json.loads((tmp_path / "work/models/probes/text/one_word/probe.json").read_text())
    assert chosen["word"] == "zq7"


def test_a_source_that_predicts_the_label_is_warned_of(tmp_path: Path) -> None:
    rows = [row | {"source": "forum" if row["cluster"] == 3 else "other"} for row in sample_rows(700)]
    summary, _ = run(tmp_path, rows)
    assert any("source and length" in warning for warning in summary["warnings"])


def test_an_sae_trained_on_test_prompts_is_refused(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(small_run, folder)
    before = pq.read_table(folder / "data/splits.parquet")
    everything = before.set_column(2, "split", [["train"] * before.num_rows])
    pq.write_table(everything, folder / "data/splits.parquet")
    run_stage("train_sae", folder, POINT, VARIANT)
    run_stage("measure_sae", folder, POINT, VARIANT)
    pq.write_table(before, folder / "data/splits.parquet")
    assert re.search(r"was trained on \d+ test prompts", run_stage_error("probe_sae", folder, POINT, VARIANT))


def changes_with_test(arm: Arm) -> bool:
    """Whether what an arm says of train prompts depends on features or labels of test prompts."""
    rng = np.random.default_rng(0)
    names = [f"p{number}" for number in range(300)]
    clusters = rng.integers(0, 2, 300)
    test = np.arange(300) >= 200
    features = rng.normal(size=(300, 40)) + clusters[:, None] * np.eye(40)[0]
    said = []
    for rubbish in (False, True):
        here, of = features.copy(), clusters.copy()
        if rubbish:
            here[test], of[test] = 100 * rng.normal(size=(100, 40)), 1 - of[test]
        sides = np.where(test, "test", "train")
        templates, nearest = np.full(300, ""), np.where(test, 0.3, np.nan)
        prompts = Prompts(names, names, np.array(["s"] * 300), of, np.array(names), sides, 1, 0, templates, nearest)
        task = Task(FULL, 0, np.arange(200), prompts.labels[:200])
        views = {"dense": {"mean": here}, "prompts": prompts}
        scored = arm.scores(views, task, prompts.groups, Fitting([0.1, 1.0], 3, 0))
        said.append({each.k: each.probabilities[~test].tolist() for each in scored})
    return said[0] != said[1]


def leaky_features(views: Any) -> dict[str, np.ndarray]:
    """The columns that tell the classes of test prompts apart best."""
    prompts, matrix = views["prompts"], views["dense"]["mean"]
    labels, here = prompts.labels[prompts.test], matrix[prompts.test]
    gap = np.abs(here[labels].mean(0) - here[~labels].mean(0))
    return {"mean": matrix[:, np.argsort(-gap)[:5]]}


def every_dense_arm() -> Iterator[Arm]:
    yield from (*DENSE, *OF_DENSE)


@pytest.mark.parametrize("arm", every_dense_arm(), ids=lambda arm: arm.name)
def test_nothing_of_test_is_used_to_choose(arm: Arm) -> None:
    assert not changes_with_test(arm)


def test_features_chosen_on_test_would_be_seen() -> None:
    assert changes_with_test(Arm("leaky", leaky_features, Model(StandardScaler)))
