"""Probes and their judge: no leak from test, chance on shuffled labels, and metrics that equal scikit-learn's."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.preprocessing import StandardScaler

from pipeline.activations.store import INDEX, ActivationStore, shard_name, write_manifest, write_shard
from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.probes.bootstrap import group_resamples, interval, p_value
from pipeline.probes.fit import fit_probe, shuffled
from pipeline.probes.judge import Judge, Truth
from pipeline.probes.metrics import METRICS
from pipeline.probes.pooling import pooled
from pipeline.probes.task import Part, balanced_task

REFERENCES = {
    "auroc": lambda y, s, w: reference.roc_auc_score(y, s, sample_weight=w),
    "average_precision": lambda y, s, w: reference.average_precision_score(y, s, sample_weight=w),
    "f1": lambda y, s, w: reference.f1_score(y, s >= 0.5, sample_weight=w),
    "accuracy": lambda y, s, w: reference.accuracy_score(y, s >= 0.5, sample_weight=w),
}


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_metrics_equal_scikit_learns_with_ties_and_weights(name: str, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.random(40) < 0.4, [True, False])
    scores = rng.integers(0, levels, 42) / levels
    weights = np.vstack([rng.integers(0, 4, (3, 42)), np.ones((1, 42), dtype=int)])
    weights[:, -2:] = 1  # both classes in every resample
    found = METRICS[name](labels, scores, weights)
    assert found == pytest.approx([REFERENCES[name](labels, scores, row) for row in weights])


def test_whole_groups_are_resampled() -> None:
    groups = np.array(["a", "b", "a", "c", "c", "c"])
    weights = group_resamples(groups, 2000, seed=0)
    for name in "abc":
        members = weights[:, groups == name]
        assert (members == members[:, :1]).all()
    assert weights[:, [0, 1, 3]].sum(axis=1).tolist() == [3] * 2000
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """200 test sets from a known pair of normals, whose AUROC is Phi(1 / sqrt 2)."""
    rng = np.random.default_rng(0)
    truth, covered = 0.76025, 0
    for seed in range(200):
        labels = np.arange(200) < 100
        scores = rng.normal(labels.astype(float), 1.0)
        low, high = interval(METRICS["auroc"](labels, scores, group_resamples(np.arange(200), 200, seed)), 0.9)
        covered += low <= truth <= high
    assert 0.82 <= covered / 200 <= 0.96


def test_p_values_of_no_difference_are_large_and_of_a_clear_one_small() -> None:
    assert p_value(np.linspace(-1, 1, 999)) > 0.9
    assert p_value(np.linspace(0.1, 1, 999)) == pytest.approx(2 / 1000)


def prompts_and_splits(counts: dict[str, list[int]]) -> tuple[pa.Table, pa.Table]:
    rows: list[dict[str, Any]] = [
        {"prompt_id": f"{side}{cluster}-{n}", "prompt": "x", "source": "s", "cluster": cluster, "split": side}
        for side, sizes in counts.items()
        for cluster, size in enumerate(sizes)
        for n in range(size)
    ]
    splits = [{"prompt_id": row["prompt_id"], "group": row["prompt_id"], "split": row.pop("split")} for row in rows]
    return pa.Table.from_pylist(rows), pa.Table.from_pylist(splits)


TASK: dict[str, Any] = {"target": 3, "min_class_prompts": 5, "seed": 0}


def test_negatives_are_as_many_as_positives_and_drawn_evenly_or_by_prevalence() -> None:
    prompts, splits = prompts_and_splits({"train": [5, 200, 200, 90, 400, 200], "test": [9, 9, 9, 9, 9, 9]})
    train, test = balanced_task(prompts, splits, negatives="even", **TASK)
    clusters = Counter(prompt_id[5] for prompt_id in train.prompt_ids)
    assert train.labels.sum() == 90 and len(train.labels) == 180
    assert clusters["3"] == 90 and clusters["0"] == 5
    assert {clusters[c] for c in "1245"} <= {21, 22}
    assert all(prompt_id.startswith("test") for prompt_id in test.prompt_ids)
    natural, _ = balanced_task(prompts, splits, negatives="natural", **TASK)
    clusters = Counter(prompt_id[5] for prompt_id in natural.prompt_ids)
    assert clusters["4"] == pytest.approx(90 * 400 / 1005, abs=10)


def test_too_few_prompts_in_a_class_are_told() -> None:
    prompts, splits = prompts_and_splits({"train": [50, 0, 0, 50, 0, 0], "test": [9, 0, 0, 4, 0, 0]})
    with pytest.raises(UserError, match="the test part has 4 prompts of cluster 3 and 9 others"):
        balanced_task(prompts, splits, negatives="even", **TASK)


def part(count: int, seed: int) -> tuple[Part, np.ndarray]:
    """Prompts whose features tell the label with some noise."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.5
    features = rng.normal(size=(count, 8)) + 1.0 * labels[:, None] * np.eye(8)[0]
    names = [f"{seed}-{n}" for n in range(count)]
    return Part(names, names, labels, np.array(names)), features


FIT: dict[str, Any] = {"c_grid": [0.01, 1.0], "folds": 3, "seed": 0, "name": "test"}


def test_shuffled_labels_give_chance_and_true_ones_do_not() -> None:
    train, features = part(600, 0)
    test, test_features = part(600, 1)

    def auroc(labelled: Part) -> float:
        probe = fit_probe({"mean": features}, StandardScaler(), labelled, **FIT)
        return float(reference.roc_auc_score(test.labels, probe.pipeline.predict_proba(test_features)[:, 1]))

    assert auroc(train) > 0.7
    assert np.mean([auroc(shuffled(train, seed)) for seed in range(5)]) == pytest.approx(0.5, abs=0.1)


def test_pooling_is_chosen_by_cross_validation() -> None:
    train, features = part(300, 0)
    noise = np.random.default_rng(5).normal(size=features.shape)
    probe = fit_probe({"max": noise, "mean": features, "last": noise}, StandardScaler(), train, **FIT)
    assert probe.choices["pooling"] == "mean" and probe.choices["C"] in FIT["c_grid"]


def test_folds_need_enough_groups() -> None:
    train, features = part(40, 0)
    one_group = Part(train.prompt_ids, train.prompts, train.labels, np.array(["same"] * 40))
    with pytest.raises(UserError, match=r"probe\.folds = 3"):
        fit_probe({"mean": features}, StandardScaler(), one_group, **FIT)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    """Three prompts in two shards, with a special token (id 99) at the end of the second."""
    rows = torch.arange(24, dtype=torch.float32).view(8, 3)
    index = {
        "prompt_id": ["a"] * 3 + ["b"] * 4 + ["c"],
        "position": [0, 1, 2, 0, 1, 2, 3, 0],
        "token_id": [1, 2, 3, 4, 5, 6, 99, 7],
    }
    write_table(tmp_path / INDEX, pa.table(index))
    shards = [{"file": shard_name(number), "rows": len(part)} for number, part in enumerate((rows[:3], rows[3:]))]
    write_shard(tmp_path / "p", 0, rows[:3])
    write_shard(tmp_path / "p", 1, rows[3:])
    write_manifest(tmp_path / "p", {"width": 3, "special_ids": [99], "shards": shards})
    return ActivationStore(tmp_path, "p")


def test_pooling_leaves_out_first_and_special_tokens(store: ActivationStore) -> None:
    rows = store.read().numpy()
    features = pooled(store, ["c", "b", "a"], ["mean", "max", "last"])
    np.testing.assert_allclose(features["mean"], [rows[7], rows[4:6].mean(0), rows[1:3].mean(0)])
    np.testing.assert_allclose(features["max"], [rows[7], rows[5], rows[2]])
    np.testing.assert_allclose(features["last"], [rows[7], rows[5], rows[2]])


def test_encoded_features_are_sparse_and_pooled_after_encoding(store: ActivationStore) -> None:
    def encode(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x - 10)

    features = pooled(store, ["a", "b"], ["mean"], encode)["mean"]
    rows = store.read()
    np.testing.assert_allclose(features.toarray(), np.stack([np.zeros(3), encode(rows[4:6]).mean(0).numpy()]))
    assert features.nnz == 3


def test_a_prompt_without_activations_is_told(store: ActivationStore) -> None:
    with pytest.raises(UserError, match="no activations of prompt zzz"):
        pooled(store, ["a", "zzz"], ["mean"])


def test_a_damaged_shard_and_a_wrong_index_are_told(store: ActivationStore) -> None:
    shard = store.folder / "00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"00001\.safetensors is missing or damaged"):
        store.read()
    write_manifest(store.folder, {"width": 3, "special_ids": [], "shards": [{"file": "00000.safetensors", "rows": 3}]})
    with pytest.raises(UserError, match="has 3 rows where"):
        ActivationStore(store.folder.parent, "p")


def test_the_judge_refuses_scores_of_other_prompts() -> None:
    judge = Judge(
        Truth(["a", "b"], np.array([True, False]), np.array(["a", "b"])), resamples=100, confidence=0.9, seed=0
    )
    assert judge.aligned(pa.table({"prompt_id": ["b", "a"], "score": [0.1, 0.9]})).tolist() == [0.9, 0.1]
    with pytest.raises(UserError, match="not of the test prompts"):
        judge.aligned(pa.table({"prompt_id": ["a", "c"], "score": [0.1, 0.9]}))


def test_a_difference_is_paired() -> None:
    test, features = part(400, 3)
    judge = Judge(Truth(test.prompt_ids, test.labels, test.groups), resamples=300, confidence=0.95, seed=0)
    score, noise = features[:, 0], features[:, 1]
    same = judge.difference(score, score)
    assert same["difference"] == same["low"] == same["high"] == 0 and same["p_value"] == 1
    better = judge.difference(score, noise)
    assert 0 < better["low"] < better["difference"] < better["high"] and better["p_value"] < 0.05
