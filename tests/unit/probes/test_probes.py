"""Probes: what they learn from, and the features that they get."""

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import sample_rows
from probe_data import made
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion
from stores import everything, written_store

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore, write_manifest
from pipeline.core.errors import UserError
from pipeline.judging.settings import SHUFFLED, Balancing, balanced
from pipeline.probes.arms.texts import Texts
from pipeline.probes.arms.tfidf import Tfidf
from pipeline.probes.inputs import Tokens, means
from pipeline.probes.models import BestColumns
from pipeline.probes.processes import in_processes
from pipeline.probes.stability import stability
from pipeline.probes.task import tasks
from pipeline.prompts.table import Prompts, read_prompts
from pipeline.sae.model import Sae
from pipeline.sae.untrained import untrained_like


def prompts_and_splits(counts: dict[str, list[int]]) -> Prompts:
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": f"{side}{cluster}-{n}",
            "prompt": f"{side}{cluster}-{n}",
            "source": "s",
            "cluster": cluster,
            "split": side,
        }
        for side, sizes in counts.items()
        for cluster, size in enumerate(sizes)
        for n in range(size)
    ]
    splits = [
        {"prompt_id": row["prompt_id"], "group": row["prompt_id"], "split": row.pop("split")}
        | {"nearest": None, "template": None}
        for row in rows
    ]
    benign = pa.table({"prompt_id": ["b"], "prompt": ["harmless"], "source": ["t"]})
    return read_prompts(pa.Table.from_pylist(rows), pa.Table.from_pylist(splits), benign, target=3, seed=0)


def test_negatives_are_as_many_as_positives_and_drawn_evenly_or_by_prevalence() -> None:
    prompts = prompts_and_splits({"train": [5, 200, 200, 90, 400, 200], "test": [9, 9, 9, 9, 9, 9]})
    chosen = balanced(prompts, "train", Balancing("even", 5))
    clusters = Counter(prompts.clusters[chosen].tolist())
    assert prompts.labels[chosen].sum() == 90 and len(chosen) == 180
    assert clusters[3] == 90 and clusters[0] == 5
    assert {clusters[c] for c in (1, 2, 4, 5)} <= {21, 22}
    assert prompts.train[chosen].all() and prompts.test[balanced(prompts, "test", Balancing("even", 5))].all()
    natural = Counter(prompts.clusters[balanced(prompts, "train", Balancing("natural", 5))].tolist())
    assert natural[4] == pytest.approx(90 * 400 / 1005, abs=10)


def test_a_group_gives_no_more_than_the_limit() -> None:
    prompts = prompts_and_splits({"train": [100, 0, 0, 100, 0, 0], "test": [100, 0, 0, 100, 0, 0]})
    groups = [f"{side}{n % 20 if n % 2 else n}" for n, side in enumerate(prompts.sides)]
    prompts = replace(prompts, groups=np.array(groups))
    sizes = Counter(prompts.groups.tolist())
    assert max(sizes.values()) > 5
    for limit in (1, 3):
        chosen = balanced(prompts, "test", Balancing("even", 5, limit))
        found = Counter(prompts.groups[chosen].tolist())
        assert max(found.values()) == limit and len(chosen) < len(balanced(prompts, "test", Balancing("even", 5)))
        assert sum(found.values()) < sum(sizes.values()) and set(found.values()) == {1, limit}
    alone = replace(prompts, groups=np.where(prompts.labels, "one", prompts.groups))
    with pytest.raises(UserError, match=r"has 5 prompts of cluster 3 .* raise filter.max_prompts or probe.group_limit"):
        balanced(alone, "test", Balancing("even", 6, 5))


def test_too_few_prompts_in_a_class_are_told() -> None:
    prompts = prompts_and_splits({"train": [50, 0, 0, 50, 0, 0], "test": [9, 0, 0, 4, 0, 0]})
    with pytest.raises(UserError, match="the test part has 4 prompts of cluster 3 and 9 others"):
        balanced(prompts, "test", Balancing("even", 5))


def test_settings_take_train_prompts_alone_and_do_what_they_say() -> None:
    prompts, _ = made(600, 0, sources=3)
    every = list(tasks(prompts, Balancing("even", 5), scarce=[16, 64, 5000], draws=2, noise=[0.1, 0.4], folds=8))
    too_many = tasks(prompts, Balancing("even", 5), scarce=[16], draws=2, noise=[], folds=9)
    assert all(not task.setting.startswith("scarce") for task in too_many)
    settings = Counter(task.setting for task in every)
    assert settings == {
        "balanced": 1,
        "shuffled": 5,
        "scarce_16": 2,
        "scarce_64": 2,
        "noise_10": 2,
        "noise_40": 2,
        **{f"without_source {n}": 1 for n in range(3)},
    }
    for task in every:
        assert prompts.train[task.train].all() and len(set(task.train)) == len(task.train)
        if task.setting == SHUFFLED:
            assert task.labels.sum() == prompts.labels[task.train].sum()
            continue
        wrong = (task.labels != prompts.labels[task.train]).mean()
        expected = int(task.setting.removeprefix("noise_")) / 100 if task.setting.startswith("noise_") else 0
        assert wrong == pytest.approx(expected, abs=0.005)
        if task.setting.startswith("scarce_"):
            size = int(task.setting.removeprefix("scarce_"))
            assert len(task.train) == size and task.labels.sum() == size / 2
        if task.setting.startswith("without_"):
            assert task.setting.removeprefix("without_") not in prompts.sources[task.train]
    first, second = (task for task in every if task.setting == "scarce_16")
    assert set(first.train) != set(second.train)


def test_of_very_many_sources_the_largest_are_left_out_in_turn() -> None:
    prompts, _ = made(3000, 0, sources=50)
    every = tasks(prompts, Balancing("even", 5), scarce=[], draws=2, noise=[], folds=2)
    left_out = [task.setting.removeprefix("without_") for task in every if task.setting.startswith("without_")]
    counts = Counter(prompts.sources[prompts.train].tolist())
    others = set(counts) - set(left_out)
    assert len(left_out) == 30 and min(counts[name] for name in left_out) >= max(counts[name] for name in others)


def test_stability_tells_signal_from_noise() -> None:
    prompts, features = made(600, 0)
    labels, rng = prompts.labels, np.random.default_rng(1)
    matrix = np.hstack([rng.normal(size=(600, 50)), features[:, :1]])
    found = stability(matrix, labels, prompts.groups, k=3, seed=0)
    assert found["always"] == 1 and found["chosen"]["50"] == 1.0
    assert 0 < found["jaccard"] < 0.9


def test_each_latent_of_an_untrained_sae_fires_as_often_as_one_of_the_trained() -> None:
    generator = torch.Generator().manual_seed(0)
    acts = torch.randn(3000, 16, generator=generator) + 2
    trained = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    trained["b_enc"] = torch.linspace(-30, 30, 64)  # from latents that never fire to some that always do
    sae = Sae("standard", trained)
    untrained = untrained_like(sae, acts, seed=0)

    def density(of: Sae, x: torch.Tensor) -> np.ndarray:
        return (of.encode(x) > 0).float().mean(0).numpy()

    assert density(sae, acts).min() == 0 and density(sae, acts).max() == 1
    assert density(untrained, acts) == pytest.approx(density(sae, acts), abs=0.002)
    again = torch.randn(3000, 16, generator=generator) + 2
    assert density(untrained, again) == pytest.approx(density(sae, again), abs=0.05)
    assert not torch.equal(untrained.encode(acts), sae.encode(acts))


SHAPES: dict[str, Any] = {"W_enc": (16, 64), "b_enc": 64, "W_dec": (64, 16), "b_dec": 16}


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    """Three prompts in two shards, with a special token (id 99) at the end of the second."""
    rows = torch.arange(24, dtype=torch.float32).view(8, 3)
    token_ids = [np.array(ids) for ids in ([1, 2, 3], [4, 5, 6, 99], [7])]
    return written_store(tmp_path, "mlp_out.0", token_ids, [rows[:3], rows[3:]], special=99)


def test_pooling_leaves_out_first_and_special_tokens(store: ActivationStore) -> None:
    rows = everything(store).numpy()
    features = pooled(store, ["p02", "p01", "p00"], ["mean", "max", "last"], lambda x: {"dense": x})["dense"]
    np.testing.assert_allclose(features["mean"], [rows[7], rows[4:6].mean(0), rows[1:3].mean(0)])
    np.testing.assert_allclose(features["max"], [rows[7], rows[5], rows[2]])
    np.testing.assert_allclose(features["last"], [rows[7], rows[5], rows[2]])


def test_encoded_features_are_sparse_and_pooled_after_encoding(store: ActivationStore) -> None:
    def views(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"latents": torch.relu(x - 10), "dense": x}

    features = pooled(store, ["p00", "p01"], ["mean"], views, sparse_views=["latents"])
    latents = features["latents"]["mean"]
    rows = everything(store)
    expected = np.stack([np.zeros(3), torch.relu(rows[4:6] - 10).mean(0).numpy()])
    np.testing.assert_allclose(latents.toarray(), expected)
    assert latents.nnz == 3
    np.testing.assert_allclose(features["dense"]["mean"][1], rows[4:6].mean(0))


def test_tokens_are_those_that_count_of_the_prompts_asked_for(store: ActivationStore) -> None:
    rows = everything(store)
    tokens = Tokens(store, ["p02", "p01", "p00"])
    x, prompt = tokens.of(np.array([2, 1]))
    assert {int(number): x[prompt == number].tolist() for number in prompt} == {
        0: rows[1:3].tolist(),
        1: rows[4:6].tolist(),
    }
    pooled_means = pooled(store, ["p02", "p01", "p00"], ["mean"], lambda x: {"dense": x})["dense"]["mean"]
    np.testing.assert_allclose(means(tokens, np.arange(3)), pooled_means)


def test_a_prompt_of_which_no_token_counts_is_zero_as_in_pooling(tmp_path: Path) -> None:
    """Since all of its tokens are outliers."""
    rows = torch.ones(8, 3)
    rows[:2] = 1e4
    token_ids = [np.array([1, 2]), np.array([1, 2, 3, 4, 5, 6])]
    store = written_store(tmp_path, "mlp_out.0", token_ids, [rows], special=99)
    x, prompt = Tokens(store, ["p00", "p01"]).of(np.array([0, 1]))
    assert x[prompt == 0].tolist() == [[0, 0, 0]] and x[prompt == 1].tolist() == [[1, 1, 1]] * 5


def test_a_prompt_without_activations_is_told(store: ActivationStore) -> None:
    with pytest.raises(UserError, match="no activations of prompt zzz"):
        Tokens(store, ["p00", "zzz"])
    with pytest.raises(UserError, match="no activations of prompt zzz"):
        pooled(store, ["p00", "zzz"], ["mean"], lambda x: {"dense": x})


def test_a_damaged_shard_and_a_wrong_index_are_told(store: ActivationStore) -> None:
    shard = store.folder / "00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"00001\.safetensors is missing or damaged"):
        store.read()
    manifest = json.loads((store.folder / "manifest.json").read_text())
    write_manifest(store.folder, manifest | {"shards": manifest["shards"][:1]})
    with pytest.raises(UserError, match="has 3 rows where"):
        ActivationStore(store.folder.parent, "mlp_out.0")


def test_tfidf_of_counted_terms_is_scikit_learns() -> None:
    texts = [row["prompt"] for row in sample_rows(400)]
    prompts, _ = made(400, 0)
    prompts = replace(prompts, texts=texts)
    views = Texts(prompts)
    train = np.flatnonzero(prompts.train)
    common = {"sublinear_tf": True, "min_df": 2}
    reference_union = FeatureUnion(
        [
            ("word", TfidfVectorizer(ngram_range=(1, 2), **common)),
            ("char", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common)),
        ]
    ).fit([texts[row] for row in train])
    ours = Tfidf(views.words).fit(views.counts[train])
    names = [name.split(" ", 1)[1] for name in views.terms[np.concatenate(ours.columns_)]]
    assert names == [name.split("__", 1)[1] for name in reference_union.get_feature_names_out()]
    difference = ours.transform(views.counts) - reference_union.transform(texts)
    assert abs(difference).max() < 1e-6


def test_columns_far_from_zero_are_ranked_by_what_they_tell() -> None:
    prompts, features = made(600, 0)
    far = (features + 2000).astype(np.float32)
    assert BestColumns(1).fit(far, prompts.labels).columns_.tolist() == [0]


def test_a_killed_process_is_one_line_and_an_error_in_one_is_told() -> None:
    def killed(number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="was killed"):
        list(in_processes(killed, 2))

    def wrong(number: int) -> None:
        raise UserError("one line")

    with pytest.raises(UserError, match="one line"):
        list(in_processes(wrong, 2))
    assert list(in_processes(lambda number: number**2, 5)) == [0, 1, 4, 9, 16]
