"""Tokens with giant activations (attention sinks) decide nothing: wherever they stand and however large they are."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import SMALL, run_stage, write_params
from safetensors.torch import load_file, save_file
from small_models import PROMPTS, WIDTH, embeddings, small_model, tokens_of
from stores import everything, written_store
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.activations.compare import relative_errors
from pipeline.activations.extraction import extract
from pipeline.activations.pooling import POOLINGS, pooled
from pipeline.activations.store import ActivationStore
from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.interventions.ablation import Removal, ablate
from pipeline.interventions.deletion import curves, removable
from pipeline.latents.firing import Firing
from pipeline.latents.statistics import mean_difference
from pipeline.lm.mask import OUTLIER_NORM, candidates, counted, norm_limit, norms_of
from pipeline.lm.tokens import PromptTokens, tokenise
from pipeline.probes.attribution import Classifier, Linear
from pipeline.sae.fidelity import fidelity
from pipeline.sae.metrics import measure
from pipeline.sae.model import Sae
from pipeline.sae.train import train_sae

POINT, VARIANT = "resid_post.1", "batch_topk"
AT = Point.parse(POINT)
SINK = 77  # a token id
FACTORS = (100, 1000)  # norms of planted tokens, in medians
EVERY = 37  # tokens, of which one is planted


def test_neither_first_nor_special_tokens_nor_outliers_count() -> None:
    positions, token_ids = np.array([0, 1, 2, 3, 0, 1, 2]), np.array([5, 9, 6, 7, 8, 5, 6])
    candidate = candidates(positions, token_ids, [9])
    assert candidate.tolist() == [False, False, True, True, False, True, True]
    norms = np.array([900.0, 1.0, 1.0, 2.0, 900.0, 21.0, 3.0])
    limit = norm_limit(norms, candidate)
    assert limit == OUTLIER_NORM * 2.5, "the median is that of the candidates"
    assert counted(candidate, norms, 20.0, np.array([0, 4, 7])).tolist() == [
        False,
        False,
        True,
        True,
        False,
        False,
        True,
    ]


def test_a_prompt_without_such_tokens_has_those_that_are_no_outliers_or_none() -> None:
    candidate, norms = np.array([False, False, False, True]), np.array([1.0, 50.0, 2.0, 3.0])
    assert counted(candidate, norms, 10.0, np.array([0, 3, 4])).tolist() == [True, False, True, True]
    assert counted(np.array([False, True]), np.array([99.0, 98.0]), 10.0).tolist() == [False, False]


def test_where_most_activations_are_zero_nothing_is_an_outlier() -> None:
    norms = np.array([0.0, 0.0, 0.0, 5.0])
    assert norm_limit(norms) == 5.0


@pytest.mark.parametrize(("size", "dtype"), [(1e20, torch.float32), (1e-30, torch.float32), (1.0, torch.float64)])
def test_norms_hold_for_any_finite_activation(size: float, dtype: torch.dtype) -> None:
    rows = size * torch.ones(4, 9, dtype=dtype)
    assert norms_of(rows).numpy() == pytest.approx(3 * size, rel=1e-6)
    assert counted(np.ones(4, dtype=bool), norms_of(rows).numpy(), norm_limit(norms_of(rows).numpy())).all()


def model_with_sinks(factor: float = 500.0) -> Any:
    """A small Qwen3 whose activations at one token, wherever it stands, are giant at every layer."""
    model = small_model("qwen3")
    with torch.no_grad():
        embeddings(model)[SINK] = factor * embeddings(model).norm(dim=1).median() * torch.eye(WIDTH)[3]
    return model


def tokens_with_sinks(count: int) -> tuple[PromptTokens, list[int]]:
    """Prompts each of which holds the token once, and where it stands among all kept tokens."""
    tokens, places, start = tokens_of(PROMPTS[:count]), [], 0
    for number, ids in enumerate(tokens.ids):
        ids[ids == SINK] = SINK + 1
        place = 1 + number % (len(ids) - 1)
        ids[place] = SINK
        places.append(start + place)
        start += len(ids)
    return tokens, places


def test_extract_finds_them_says_how_many_and_keeps_their_limit(tmp_path: Path) -> None:
    tokens, places = tokens_with_sinks(30)
    points = [Point.parse(POINT), Point.parse("attn_out.2")]
    counts = extract(model_with_sinks(), tokens, points, tmp_path, batch_tokens=256, dtype=torch.float32)
    store = ActivationStore(tmp_path, POINT)
    norms = everything(store).norm(dim=1)
    candidate = np.concatenate([np.arange(len(ids)) > 0 for ids in tokens.ids])
    assert store.norm_limit == pytest.approx(10 * np.median(norms[candidate]), rel=1e-5)
    expected = candidate.copy()
    expected[places] = False
    assert store.counted.tolist() == expected.tolist()
    figures = counts["points"][POINT]
    assert figures["outliers"] == len(places) and figures["tokens_counted"] == expected.sum()
    energy = norms.double().square().numpy()
    assert figures["outlier_energy"] == pytest.approx(energy[places].sum() / energy[candidate].sum())
    assert figures["outlier_energy"] > 0.99
    assert counts["points"]["attn_out.2"]["outliers"] == 0, "a norm comes before what attention adds"
    assert torch.equal(store.read(), everything(store)[torch.from_numpy(expected)])


def test_prompt_ids_that_do_not_tell_the_prompts_apart_are_refused() -> None:
    from small_models import TOKENIZER

    with pytest.raises(UserError, match=r"prompt id .a. stands for two prompts: give each its own"):
        tokenise(TOKENIZER, ["a", "b", "a"], PROMPTS[:3], max_tokens=20)
    with pytest.raises(UserError, match="there are 2 prompt ids for 3 prompts: give one for each"):
        tokenise(TOKENIZER, ["a", "b"], PROMPTS[:3], max_tokens=20)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "norms.safetensors").unlink(), r"norms\.safetensors is missing or damaged"),
        (lambda folder: save_file({"norms": torch.ones(3)}, folder / "norms.safetensors"), "is not of the rows of its"),
        (lambda folder: (folder / "manifest.json").write_text('{"width": 8}'), r"manifest\.json has no shards"),
    ],
)
def test_a_store_without_its_mask_is_refused(damage: Any, expected: str, tmp_path: Path) -> None:
    extract(small_model("qwen3"), tokens_of(PROMPTS[:5]), [AT], tmp_path, batch_tokens=256)
    damage(tmp_path / POINT)
    with pytest.raises(UserError, match=expected):
        ActivationStore(tmp_path, POINT)


def test_the_error_of_a_quantised_model_is_not_that_of_its_sinks() -> None:
    tokens, _ = tokens_with_sinks(20)
    model, other = model_with_sinks(), model_with_sinks()
    with torch.no_grad():
        embeddings(other)[SINK] *= 1.5
    assert relative_errors(other, model, tokens, [AT], 256)[POINT] < 0.05


def language_model(factor: float) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 600, "initializer_range": 0.2, "n_positions": 256}
    model = GPT2LMHeadModel(GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, **sizes)).eval().requires_grad_(False)
    with torch.no_grad():
        embeddings(model)[SINK] = factor * torch.eye(WIDTH)[3]
    return model


class WrongOfSinks:
    """In place of an SAE: it reconstructs every activation perfectly but giant ones, of which it makes nothing."""

    tensors = {"W_dec": torch.eye(WIDTH)}  # noqa: RUF012

    def encode(self, x_ND: Tensor) -> Tensor:
        return x_ND

    def decode(self, x_ND: Tensor) -> Tensor:
        return x_ND * (x_ND.norm(dim=1, keepdim=True) < 100)


def limit_of(model: Any, tokens: PromptTokens, folder: Path) -> float:
    extract(model.base_model, tokens, [AT], folder, batch_tokens=256, dtype=torch.float32)
    return ActivationStore(folder, POINT).norm_limit


def test_fidelity_leaves_them_as_they_are(tmp_path: Path) -> None:
    tokens, _ = tokens_with_sinks(12)
    model, sae = language_model(300), WrongOfSinks()
    limit = limit_of(model, tokens, tmp_path)
    found = fidelity(model, tokens, AT, limit, sae, range(12))  # type: ignore[arg-type]
    assert found is not None
    assert found["kl_sae"] == pytest.approx(0, abs=1e-6) and found["kl_zero"] > 1e-3
    without = fidelity(model, tokens, AT, math.inf, sae, range(12))  # type: ignore[arg-type]
    assert without is not None and without["kl_sae"] > 1e-3, "so they would have mattered"


def test_interventions_neither_read_nor_change_them(tmp_path: Path) -> None:
    """A classifier on the sinks' direction sees nothing of them; an ablation takes nothing from them."""
    tokens, _ = tokens_with_sinks(12)
    model = language_model(300)
    limit = limit_of(model, tokens, tmp_path)
    reader = Classifier(Linear("max", np.eye(WIDTH)[3], 0.0), lambda x_TD: x_TD)
    own = np.arange(WIDTH)
    clean, changed = ablate(
        model,
        tokens,
        AT,
        WrongOfSinks(),  # type: ignore[arg-type]
        {"all": Removal(own, np.ones(12))},
        {"dense": (AT, reader)},
        {AT: limit},
        batch_tokens=256,
    )
    assert np.abs(clean.logits["dense"]).max() < 100 and np.abs(changed["all"].logits["dense"]).max() < 1e-4
    np.testing.assert_allclose(changed["all"].removed, 1.0, rtol=1e-5)

    how: dict[str, Any] = {"batch_tokens": 256, "dtype": torch.float32, "seed": 0}
    may_go = removable(tokens, tokens)
    found = curves(model.base_model, tokens, may_go, AT, {"dense": reader}, norm_limit=limit, **how)
    assert all(np.abs(logits).max() < 100 for logits in found.logits.values())
    without = [positions[ids[positions] != SINK] for ids, positions in zip(tokens.ids, may_go, strict=True)]
    same = curves(model.base_model, tokens, without, AT, {"dense": reader}, norm_limit=limit, **how)
    np.testing.assert_array_equal(found.logits["deletion", "dense"], same.logits["deletion", "dense"], "they stay")
    with pytest.raises(UserError, match="no prompt of the target has 2 tokens that can be removed"):
        curves(model.base_model, tokens, without, AT, {"dense": reader}, norm_limit=0.0, **how)


def test_a_prompt_of_which_nothing_counts_has_no_features(tmp_path: Path) -> None:
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    rows[3:5] *= 1e4
    store = written_store(tmp_path, POINT, [np.array([1, 2, 3]), np.array([4, 5]), np.array([6, 7, 8, 9])], [rows], 99)
    assert store.counted.tolist() == [False, True, True, False, False, False, True, True, True]
    sae = Sae(
        "standard",
        {"W_enc": torch.eye(4), "b_enc": torch.zeros(4), "W_dec": torch.eye(4), "b_dec": torch.zeros(4)},
    )
    for pooling, features in pooled(store, store.prompt_ids, list(POOLINGS), lambda x: {"x": x})["x"].items():
        assert features[1].tolist() == [0.0] * 4 and np.abs(features[[0, 2]]).min() > 0, pooling
        linear = Linear(pooling, np.ones(4), 0.5)
        assert linear.logit(np.empty((0, 4))) == 0.5 and linear.contributions(np.empty((0, 4))).shape == (0, 4)
        latents = pooled(store, store.prompt_ids, [pooling], lambda x: {"f": sae.encode(x)})["f"][pooling]
        difference = mean_difference(Firing.of(store, sae), pooling, np.array([1, 1, 0]) > 0, np.array([0, 0, 1]) > 0)
        np.testing.assert_allclose(difference, latents[:2].mean(0) - latents[2], rtol=1e-5)


def test_training_on_any_activations_leaves_them_out_of_training_and_held_out_loss() -> None:
    def trained(factor: float, dtype: torch.dtype = torch.float32) -> Sae:
        generator = torch.Generator().manual_seed(0)
        mixed = torch.randn(64, 32, generator=generator)
        acts = torch.relu(torch.randn(4000, 64, generator=generator) - 1.2) @ mixed
        acts[::50] *= factor
        acts = acts.to(dtype)
        how: dict[str, Any] = {"architecture": "batch_topk", "width": 128, "k": 8, "epochs": 4, "batch_size": 256}
        return train_sae(acts[:3000], held_out=acts[3000:], patience=1, **how)

    assert trained(1, torch.float64).latents == 128, "any float type"
    one, other = (trained(factor).tensors for factor in FACTORS)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def flow(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "flow"
    shutil.copytree(small_run, folder)
    write_params(folder, SMALL | {"sae.epochs": 3})
    return folder


def plant(folder: Path, factor: float) -> None:
    """Giant activations at some tokens, and the mask that extract makes of them."""
    root = folder / "data/activations"
    store = ActivationStore(root, POINT)
    file = root / POINT / "00000.safetensors"
    rows = load_file(file)["activations"]
    norms = norms_of(rows).numpy()
    places = np.flatnonzero(store.counted)[::EVERY]
    directions = torch.randn(len(places), rows.shape[1], generator=torch.Generator().manual_seed(0))
    directions *= factor * float(np.median(norms[store.counted])) / directions.norm(dim=1, keepdim=True)
    rows[torch.from_numpy(places)] = directions.to(rows)
    file.unlink()
    save_file({"activations": rows}, file)
    index = pq.read_table(root / "tokens.parquet")
    manifest = json.loads((root / POINT / "manifest.json").read_text())
    candidate = candidates(index["position"].to_numpy(), index["token_id"].to_numpy(), manifest["special_ids"])
    save_file({"norms": norms_of(rows)}, root / POINT / "norms.safetensors")
    manifest["norm_limit"] = norm_limit(norms_of(rows).numpy(), candidate)
    (root / POINT / "manifest.json").write_text(json.dumps(manifest))


def judged(folder: Path) -> dict[str, Any]:
    """Metrics of the SAE and of the probes."""
    run_stage("train_sae", folder, POINT, VARIANT)
    run_stage("measure_sae", folder, POINT, VARIANT)
    run_stage("probe_dense", folder, POINT)
    run_stage("probe_sae", folder, POINT, VARIANT)
    run_stage("probe_stacked", folder)
    run_stage("evaluate", folder)
    sae = json.loads((folder / f"metrics/sae/{POINT}/{VARIANT}.json").read_text())
    del sae["fidelity"]  # the model itself is run, and has none
    return {"sae": sae, "probes": json.loads((folder / "metrics/probes.json").read_text())}


def test_planted_tokens_move_no_figure_of_saes_and_probes(flow: Path, tmp_path: Path) -> None:
    found = {}
    for factor in (None, *FACTORS):
        folder = tmp_path / str(factor)
        shutil.copytree(flow, folder)
        if factor:
            plant(folder, factor)
        found[factor] = judged(folder)
    one, other = (found[factor] for factor in FACTORS)
    assert one == other, "their size makes no difference at all"
    for side in ("train", "held_out"):
        plain, planted = found[None]["sae"][side], one["sae"][side]
        assert planted["fvu"] == pytest.approx(plain["fvu"], abs=0.03) and planted["l0"] == pytest.approx(4, abs=0.5)
    for arm in ("dense", "attention", f"sae_{VARIANT}", f"untrained_{VARIANT}"):
        # on all test prompts: the balanced ones are two thirds of them, too few for this bound
        plain, planted = (each["probes"]["natural"][POINT][arm]["auroc"] for each in (found[None], one))
        assert planted == pytest.approx(plain, abs=0.06), arm


def test_measured_are_the_tokens_that_count(tmp_path: Path) -> None:
    """The chain of the packages' examples: extract, read, train, measure."""
    tokens, _ = tokens_with_sinks(40)
    extract(model_with_sinks(), tokens, [AT], tmp_path, batch_tokens=256)
    acts = ActivationStore(tmp_path, POINT).read()
    how: dict[str, Any] = {
        "architecture": "batch_topk",
        "width": 64,
        "k": 4,
        "epochs": 20,
        "batch_size": 64,
        "lr": 1e-3,
    }
    metrics = measure(train_sae(acts, **how), acts).metrics
    assert metrics["l0"] == pytest.approx(4, abs=0.1) and metrics["fvu"] < 1
