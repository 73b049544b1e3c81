"""Latents removed from the language model, and the stage that reports that and what deletion of tokens does."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import SMALL, run_stage, run_stage_error, sample_rows, save_small_model, write_csv, write_params
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from scipy.special import expit
from small_models import PROMPTS, TOKENIZER, WIDTH, one_direction, seen_alone, tokens_of
from stores import everything
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel

from pipeline.activations.store import ActivationStore
from pipeline.core.points import Point
from pipeline.interventions.ablation import Outcome, Removal, ablate, beside, downstream, mean_and_range
from pipeline.interventions.deletion import METHODS, SHARES
from pipeline.interventions.latents import choose, equalising, matched
from pipeline.lm.tokens import PromptTokens
from pipeline.probes.attribution import Classifier, Linear
from pipeline.sae.model import Sae

AT, AFTER, VARIANT = "attn_out.1", "resid_post.1", "batch_topk"


@pytest.mark.parametrize(
    ("point", "found"),
    [
        ("attn_out.1", ["attn_out.1", "mlp_out.1", "layer_delta.1", "resid_post.1", "attn_out.2"]),
        ("layer_delta.1", ["layer_delta.1", "resid_post.1", "attn_out.2"]),
        ("resid_post.1", ["resid_post.1", "attn_out.2"]),
        ("resid_post.0", ["resid_post.0", "attn_out.1", "mlp_out.1", "layer_delta.1", "resid_post.1", "attn_out.2"]),
    ],
)
def test_points_downstream(point: str, found: list[str]) -> None:
    every = ["resid_post.1", "attn_out.2", "mlp_out.1", "resid_post.0", "layer_delta.1", "attn_out.1"]
    assert [str(each) for each in downstream(Point.parse(point), [Point.parse(each) for each in every])] == found


def language_model(family: str = "gpt2") -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(TOKENIZER), "initializer_range": 0.2}
    if family == "bert":
        sizes |= {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        return BertLMHeadModel(BertConfig(**sizes)).eval().requires_grad_(False)
    config = GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=256, **sizes)
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def random_sae(latents: int = 40) -> Sae:
    """The last half of its latents is never active."""
    torch.manual_seed(1)
    b_enc = torch.zeros(latents)
    b_enc[latents // 2 :] = -1e6
    W_dec = torch.nn.functional.normalize(torch.randn(latents, WIDTH), dim=1)
    return Sae("standard", {"W_enc": W_dec.T, "b_enc": b_enc, "W_dec": W_dec, "b_dec": torch.randn(WIDTH) * 0.1})


def ablated(
    model: Any, tokens: PromptTokens, point: str, latents: list[int], after: str = "resid_post.1", factor: float = 1.0
) -> tuple[Outcome, Outcome]:
    sae, at = random_sae(), Point.parse(point)
    of_latents = Classifier(Linear("mean", np.linspace(-1, 1, sae.latents), 0.1), sae.encode)
    readers = {
        "sae": (at, of_latents),
        "here": (at, one_direction()),
        "after": (Point.parse(after), one_direction("max")),
    }
    limits = {where: math.inf for where, _ in readers.values()}
    sets = {"some": Removal(np.array(latents), np.full(len(tokens.ids), factor))}
    clean, changed = ablate(model, tokens, at, sae, sets, readers, limits, batch_tokens=200)
    return clean, changed["some"]


@pytest.mark.parametrize("point", ["resid_post.0", "mlp_out.1"])
def test_latents_that_are_never_active_change_nothing(point: str) -> None:
    tokens = tokens_of(PROMPTS[:12])
    clean, found = ablated(language_model(), tokens, point, list(range(20, 40)))
    everyone = np.ones(12, dtype=bool)
    for name in clean.logits:
        np.testing.assert_array_equal(clean.logits[name], found.logits[name])
    assert found.kl.tolist() == found.removed.tolist() == [0.0] * 12
    changes = found.changes(clean, everyone)
    assert changes["kl"] == changes["ce"] == changes["classifiers"]["after"]["probability"] == 0
    assert clean.levels(everyone)["ce"] > 1


@pytest.mark.parametrize(("point", "module"), [("resid_post.0", "h.0"), ("mlp_out.1", "h.1.mlp")])
def test_ablating_equals_splicing_by_hand(point: str, module: str) -> None:
    model, tokens, latents = language_model(), tokens_of(PROMPTS[:7]), [3, 11, 12]
    sae, base = random_sae(), model.base_model
    clean, found = ablated(model, tokens, point, latents)
    for prompt, ids in enumerate(tokens.ids):
        inputs = torch.from_numpy(ids).long()[None]
        parts: list[Tensor] = []
        plain = model(input_ids=inputs).logits[0].log_softmax(-1)

        def change(_: Any, __: Any, output: Any, parts: list[Tensor] = parts) -> Any:
            state = (output if torch.is_tensor(output) else output[0]).clone()
            x = state[0, 1:]
            part = sum(sae.encode(x)[:, latent, None] * sae.tensors["W_dec"][latent] for latent in latents)
            parts[:] = [x.clone(), x - part]
            state[0, 1:] = x - part
            return state if torch.is_tensor(output) else (state, *output[1:])

        with torch.no_grad():
            before = seen_alone(base, "h.1", ids)[1][1:]
        handle = base.get_submodule(module).register_forward_hook(change)
        other = model(input_ids=inputs).logits[0].log_softmax(-1)
        after = seen_alone(base, "h.1", ids)[1][1:]
        handle.remove()
        judged = range(1, len(ids) - 1)
        kl = np.mean([float((plain[row].exp() * (plain[row] - other[row])).sum()) for row in judged])
        ce = np.mean([float(-other[row, ids[row + 1]]) for row in judged])
        assert found.kl[prompt] == pytest.approx(kl, rel=1e-3, abs=1e-6) and kl > 1e-5
        assert found.ce[prompt] == pytest.approx(ce, rel=1e-4)
        assert clean.ce[prompt] == pytest.approx(
            np.mean([float(-plain[row, ids[row + 1]]) for row in judged]), rel=1e-4
        )
        x, left = parts
        norms = ((x - left).norm(dim=1) / x.norm(dim=1)).mean()
        assert found.removed[prompt] == pytest.approx(float(norms), rel=1e-3)
        assert found.logits["here"][prompt] == pytest.approx(float(left[:, 0].mean()), abs=1e-4)
        assert found.logits["after"][prompt] == pytest.approx(float(after[:, 0].max()), abs=1e-3)
        assert clean.logits["after"][prompt] == pytest.approx(float(before[:, 0].max()), abs=1e-3)
        own = float(sae.encode(left).double().mean(0) @ torch.linspace(-1, 1, 40).double() + 0.1)
        assert found.logits["sae"][prompt] == pytest.approx(own, abs=1e-4)
    assert abs(found.logits["after"] - clean.logits["after"]).max() > 1e-3


def test_an_encoder_predicts_no_next_token_but_its_classifiers_change() -> None:
    clean, found = ablated(language_model("bert"), tokens_of(PROMPTS[:5]), "resid_post.0", [1, 2, 3])
    assert np.isnan([found.kl, found.ce, clean.ce]).all()
    assert np.isnan(found.changes(clean, np.ones(5, dtype=bool))["kl"])
    assert (found.logits["after"] != clean.logits["after"]).all()


def test_spread_is_mean_and_extremes_of_every_figure() -> None:
    draws: list[Any] = [{"kl": value, "deep": {"er": -value}} for value in (1.0, 2.0, 6.0)]
    assert mean_and_range(draws) == {
        "kl": {"mean": 3, "low": 1, "high": 6},
        "deep": {"er": {"mean": -3, "low": -6, "high": -1}},
    }


def test_a_change_is_as_likely_as_its_rank_among_random_ones() -> None:
    draws = [{"kl": float(number), "none": math.nan} for number in range(39)]

    def p_value(value: float) -> float:
        return float(beside({"kl": value, "none": 0.0}, draws)["kl"]["p_value"])

    assert p_value(-1) == p_value(100) == pytest.approx(0.05)
    assert p_value(0.5) == p_value(37.5) == pytest.approx(0.1)
    assert p_value(19) == p_value(18.5) == 1
    assert math.isnan(beside({"kl": 0.0, "none": 0.0}, draws)["none"]["p_value"])
    rng = np.random.default_rng(0)
    alike = [beside(rng.normal(), rng.normal(size=39).tolist())["p_value"] <= 0.05 for _ in range(2000)]
    assert 0.035 < np.mean(alike) < 0.065


def test_matched_latents_are_others_that_are_active_as_often_and_as_strongly() -> None:
    rng = np.random.default_rng(0)
    density = rng.uniform(-4, -0.3, 4000)
    likeness = np.stack([density, density + rng.normal(0, 0.5, 4000)], axis=1) * np.log(10)
    top = rng.choice(4000, 16, replace=False)
    draws = [matched(top, likeness, [0, draw]) for draw in range(5)]
    for draw in draws:
        assert len(set(draw) | set(top)) == 32
        assert np.median(np.abs(likeness[draw] - likeness[top])) < 0.2
    assert len({tuple(draw) for draw in draws}) == 5
    assert matched(top, likeness, [0, 3]).tolist() == draws[3].tolist()
    few = matched(np.array([0, 2]), np.log([[0.5], [0.1], [0.1], [0.01]]), [0, 0])
    assert sorted(few) == [1, 3]


def test_random_latents_remove_as_much_from_each_side_as_the_chosen_ones() -> None:
    norms = np.array([[4.0, 1.0, 0.0], [2.0, 2.0, 0.0], [1.0, 3.0, 0.0], [1.0, 1.0, 0.0]])
    side = np.array([True, True, False, False])
    factors = equalising(norms, [side, ~side])
    assert factors.tolist() == [[1, 2, 1], [1, 2, 1], [1, 0.5, 1], [1, 0.5, 1]]
    for mask in (side, ~side):
        assert (factors * norms)[mask, 1].mean() == norms[mask, 0].mean()


def test_a_factor_multiplies_what_is_removed() -> None:
    model, tokens = language_model(), tokens_of(PROMPTS[:7])
    clean, once = ablated(model, tokens, "resid_post.1", [3, 11])
    _, twice = ablated(model, tokens, "resid_post.1", [3, 11], factor=2.0)
    np.testing.assert_allclose(twice.removed, 2 * once.removed, rtol=1e-5)
    change = once.logits["here"] - clean.logits["here"]
    np.testing.assert_allclose(twice.logits["here"] - clean.logits["here"], 2 * change, atol=1e-5)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    write_csv(folder / "prompts.csv", sample_rows(700))
    save_small_model(folder / "lm")
    write_params(folder, SMALL | {"extract.points": [AFTER, AT], "probe.poolings": ["mean", "max"]})
    for stage in ("download", "filter", "split", "fetch_model", "extract"):
        run_stage(stage, folder)
    run_stage("train_sae", folder, AT, VARIANT)
    run_stage("measure_sae", folder, AT, VARIANT)
    run_stage("probe_dense", folder, AT)
    run_stage("probe_dense", folder, AFTER)
    run_stage("probe_sae", folder, AT, VARIANT)
    run_stage("intervene", folder, AT, VARIANT)
    return folder


def results(folder: Path) -> tuple[Any, list[dict[str, str]]]:
    metrics = json.loads((folder / f"metrics/interventions/{AT}/{VARIANT}.json").read_text())
    with (folder / f"metrics/plots/interventions/{AT}/{VARIANT}.csv").open() as file:
        return metrics, list(csv.DictReader(file))


def test_the_stage_reports_curves_and_ablations(flow: Path) -> None:
    metrics, rows = results(flow)
    assert {(row["method"], row["order"], row["classifier"]) for row in rows} == {
        (method, order, classifier)
        for method in METHODS
        for order in ("sae", "dense", "left_out_sae", "left_out_dense", "random")
        for classifier in ("sae", "dense")
    }
    assert len(rows) == 20 * len(SHARES)
    for order in ("sae", "left_out_sae"):
        assert metrics["faithfulness"]["deletion"][order]["sae"]["area"] > 0
    assert metrics["faithfulness"]["deletion"]["dense"]["dense"]["area"] > 0
    ablation = metrics["ablation"]
    readers = {"sae", f"dense @ {AT}", f"dense @ {AFTER}"}
    for side in ("target", "other"):
        assert ablation["prompts"][side] > 5
        assert set(ablation["model"][side]["classifiers"]) == set(ablation["top"][side]["classifiers"]) == readers
        kl = ablation["random"][side]["kl"]
        assert 0 < kl["low"] <= kl["mean"] <= kl["high"] and ablation["top"][side]["kl"] > 0
        assert 2 / 40 <= kl["p_value"] <= 1
        removed = ablation["random"]["removed_norm"][side]
        expected = ablation["top"]["removed_norm"][side]
        assert [removed[name] for name in ("low", "high")] == pytest.approx([expected] * 2, rel=0.02)
        assert ablation["top"]["factor"][side] == 1 and ablation["random"]["factor"][side]["mean"] > 0
    assert len(set(ablation["top_latents"])) == 16


def test_logits_are_those_of_the_stored_scores(flow: Path) -> None:
    store = ActivationStore(flow / "data/activations", AT)
    sae = Sae.load(flow / f"models/sae/{AT}/{VARIANT}")
    states = everything(store)
    probes, scores = flow / "models/probes", flow / "data/scores"
    arms = {
        "dense": (Linear.load(probes / f"dense/{AT}/dense", sae.width), lambda x: x, scores / f"dense/{AT}.parquet"),
        "sae": (
            Linear.load(probes / f"sae/{AT}/{VARIANT}/sae", sae.latents),
            sae.encode,
            scores / f"sae/{AT}/{VARIANT}.parquet",
        ),
    }
    for arm, (linear, features, file) in arms.items():
        classifier = Classifier(linear, features)
        rows = pq.read_table(file).to_pylist()
        rows = [row for row in rows if row["split"] != "train"]  # whose scores are of other fits
        wanted = [row for row in rows if (row["arm"], row["k"], row["setting"]) == (arm, None, "balanced")]
        assert len(wanted) > 100
        for row in wanted:
            number = store.prompt_ids.index(row["prompt_id"])
            span = np.arange(store.offsets[number], store.offsets[number + 1])
            x_TD = states[span[store.counted[span]]].float()
            assert expit(classifier.logit(x_TD)) == pytest.approx(row["score"], abs=1e-4)
            total = classifier.by_token(x_TD).sum() + linear.bias
            assert total == pytest.approx(classifier.logit(x_TD), abs=1e-9)


def spoil(folder: Path, side: str) -> None:
    """Replace the activations of one side of the split by rubbish, and the texts of the other."""
    sides = {row["prompt_id"]: row["split"] for row in pq.read_table(folder / "data/splits.parquet").to_pylist()}
    ids = pq.read_table(folder / "data/activations/tokens.parquet")["prompt_id"].to_pylist()
    here = torch.tensor([sides.get(prompt_id) == side for prompt_id in ids])
    shard = folder / "data/activations" / AT / "00000.safetensors"
    rows = load_tensors(shard)["activations"]
    assert len(rows) == len(here)
    rows[here] = torch.randn(int(here.sum()), rows.shape[1]).half()
    save_tensors({"activations": rows}, shard)
    prompts = pq.read_table(folder / "data/prompts.parquet")
    texts = [
        row["prompt"] if sides[row["prompt_id"]] == side else f"rubbish number {number}"
        for number, row in enumerate(prompts.to_pylist())
    ]
    pq.write_table(prompts.set_column(1, "prompt", [texts]), folder / "data/prompts.parquet")


def test_latents_are_chosen_on_train_prompts_and_figures_are_of_test_prompts(flow: Path, tmp_path: Path) -> None:
    for side in ("test", "train"):
        shutil.copytree(flow, tmp_path / side)
        spoil(tmp_path / side, side)
        run_stage("intervene", tmp_path / side, AT, VARIANT)
    whole, of_test = results(flow), results(tmp_path / "test")
    assert of_test[1] == whole[1], "curves do not look at stored test activations"
    for name in ("top_latents", "top"):
        assert of_test[0]["ablation"][name] == whole[0]["ablation"][name]
    assert of_test[0]["logit_sd"] != whole[0]["logit_sd"], "the unit of areas does"
    spoilt = results(tmp_path / "train")
    assert spoilt[0]["ablation"]["top_latents"] != results(flow)[0]["ablation"]["top_latents"]
    assert spoilt[1] != results(flow)[1]


def test_the_latents_that_tell_the_classes_apart_are_chosen(flow: Path) -> None:
    """Not those that are active on every prompt, however large their contributions."""
    store = ActivationStore(flow / "data/activations", AT)
    ids = store.prompt_ids[:40]
    labels = np.arange(40) % 2 == 0
    first = everything(store)[store.offsets[1] : store.offsets[2]].float().mean(0)
    one = torch.nn.functional.normalize(torch.randn(8, store.width), dim=1)
    b_enc = torch.tensor([1e3, *[0.0] * 7])
    sae = Sae("standard", {"W_enc": one.T, "b_enc": b_enc, "W_dec": one, "b_dec": first})
    sets = choose(store, sae, Linear("mean", np.array([5.0, *[1.0] * 3, *[-1.0] * 4]), 0.0), ids, labels, 0)
    pooled = []
    for number in range(40):
        span = np.arange(store.offsets[number], store.offsets[number + 1])
        pooled.append(sae.encode(everything(store)[span[store.counted[span]]].float()).double().mean(0).numpy())
    gap = np.array(pooled)[labels].mean(0) - np.array(pooled)[~labels].mean(0)
    gap *= [5, 1, 1, 1, -1, -1, -1, -1]
    assert sets.top.tolist() == np.argsort(-gap)[:4].tolist()
    assert sets.density[0] == 1 and len(sets.random) == 39
    assert all(sorted({*draw, *sets.top}) == list(range(8)) for draw in sets.random)


def test_missing_and_unfit_probes_are_one_line(flow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(flow, folder)
    narrow = {"sae.train": ["batch_topk", "topk"], "sae.variants.topk.width": 32}
    write_params(folder, SMALL | {"extract.points": [AFTER, AT]} | narrow)
    assert "run 'dvc repro'" in run_stage_error("intervene", folder, AT, "topk")
    run_stage("train_sae", folder, AT, "topk")
    run_stage("measure_sae", folder, AT, "topk")
    missing = f"models/probes/sae/{AT}/topk/sae/probe.json is missing"
    assert missing in run_stage_error("intervene", folder, AT, "topk")
    shutil.copytree(folder / f"models/probes/sae/{AT}/{VARIANT}", folder / f"models/probes/sae/{AT}/topk")
    assert "is for 64 features, not 32" in run_stage_error("intervene", folder, AT, "topk")
    (folder / f"models/probes/dense/{AFTER}/dense/probe.safetensors").unlink()
    assert f"{AFTER}/dense/probe.safetensors is missing" in run_stage_error("intervene", folder, AT, VARIANT)
