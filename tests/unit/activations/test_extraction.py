"""Activations do not depend on batch, padding and order; all of them are there; and nothing is run in vain."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import SMALL, run_stage, sample_rows, save_small_model, write_csv, write_params
from safetensors.torch import load_file, save_file
from small_models import (
    IDS,
    PROMPTS,
    TOKENIZER,
    block_name,
    embeddings,
    extracted,
    relative_error,
    seen_alone,
    small_model,
    tokens_of,
)
from stores import everything

from pipeline.activations.compare import relative_errors
from pipeline.activations.extraction import extract
from pipeline.activations.store import ActivationStore
from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.lm.tokens import tokenise


def test_a_prompt_does_not_depend_on_what_it_was_batched_with(tmp_path: Path) -> None:
    model = small_model("qwen3")
    one_by_one = extracted(model, tokens_of(PROMPTS), ["resid_post.2"], tmp_path / "a", batch_tokens=1)
    together = extracted(model, tokens_of(PROMPTS), ["resid_post.2"], tmp_path / "b", batch_tokens=4096)
    a, b = one_by_one["resid_post.2"], together["resid_post.2"]
    assert ((a - b).norm(dim=1) / a.norm(dim=1)).max() <= 1e-4


def test_padding_never_reaches_a_stored_row(tmp_path: Path) -> None:
    model = small_model("qwen3")
    model.config.pad_token_id = 7
    plain = extracted(model, tokens_of(PROMPTS), ["resid_post.2"], tmp_path / "a")["resid_post.2"]
    with torch.no_grad():
        embeddings(model)[7] = 1e4
    used = np.concatenate(tokens_of(PROMPTS).ids) == 7
    loud = extracted(model, tokens_of(PROMPTS), ["resid_post.2"], tmp_path / "b")["resid_post.2"]
    assert not used.any(), "choose a token that no prompt uses"
    torch.testing.assert_close(plain, loud)


@pytest.mark.parametrize("shard_mb", [1, 64])
@pytest.mark.slow
def test_every_kept_token_of_every_prompt_is_stored_once_and_in_order(shard_mb: int, tmp_path: Path) -> None:
    prompts = PROMPTS * (200 if shard_mb == 1 else 1)
    ids = [f"id{number:05d}" for number in range(len(prompts))]
    tokens = tokenise(TOKENIZER, ids, prompts, max_tokens=50)
    extracted(small_model("qwen3"), tokens, ["resid_post.0"], tmp_path, shard_mb=shard_mb, dtype=torch.float16)
    store = ActivationStore(tmp_path, "resid_post.0")
    assert (len(store.shards) > 1) == (shard_mb == 1)
    assert sum(shard["rows"] for shard in store.shards) == sum(min(len(ids), 50) for ids in tokens.ids)
    index = pq.read_table(tmp_path / "tokens.parquet").to_pydict()
    assert index["token_id"] == [int(token) for ids in tokens.ids for token in ids]
    assert index["position"] == [position for ids in tokens.ids for position in range(len(ids))]
    assert index["prompt_id"] == [name for name, ids in zip(ids, tokens.ids, strict=True) for _ in ids]
    # the same prompt has the same rows wherever it stands
    rows = everything(store)
    first, again = (rows[store.offsets[n] : store.offsets[n + 1]] for n in (3, len(prompts) - len(PROMPTS) + 3))
    torch.testing.assert_close(first, again, rtol=1e-2, atol=1e-2)


def test_batches_stay_within_the_budget_and_hold_each_prompt_once(tmp_path: Path) -> None:
    model = small_model("qwen3")
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    tokens = tokens_of(PROMPTS)
    counts = extract(model, tokens, [Point.parse("resid_post.0")], tmp_path, batch_tokens=300)
    del shapes[:2]  # trials of whether the model is causal
    assert sum(batch for batch, _ in shapes) == len(PROMPTS)
    assert all(batch * length <= 300 for batch, length in shapes)
    padded = sum(batch * length for batch, length in shapes)
    assert counts["padding_share"] == pytest.approx(1 - counts["tokens_run"] / padded)
    assert counts["padding_share"] < 0.2


@pytest.mark.parametrize(("poison", "kind"), [(float("nan"), "NaN"), (1e9, "infinite")])
def test_an_activation_that_is_not_finite_names_prompt_token_and_point(
    poison: float, kind: str, tmp_path: Path
) -> None:
    model = small_model("gpt2")
    tokens = tokens_of(PROMPTS)
    victim, position = 17, 4
    token = tokens.ids[victim][position]
    before = [list(ids).index(token) if token in ids else None for ids in tokens.ids[:victim]]
    with torch.no_grad():
        embeddings(model)[int(token)] = poison
    first = next((n for n, place in enumerate(before) if place is not None), victim)
    # attention hands a NaN on to the tokens before it: 0 x NaN is NaN
    place = r"\d+" if kind == "NaN" else str(list(tokens.ids[first]).index(token))
    with pytest.raises(UserError, match=rf"at resid_post.0 is {kind} for prompt {IDS[first]}, token {place}"):
        extracted(model, tokens, ["resid_post.0"], tmp_path, dtype=torch.float16)


def test_chat_keeps_the_prompts_own_tokens_and_all_keeps_the_templates_too() -> None:
    plain = tokens_of(PROMPTS[:5])
    chat = tokens_of(PROMPTS[:5], prompt_format="chat")
    everything = tokens_of(PROMPTS[:5], prompt_format="chat_thinking", keep="all")
    for number, prompt in enumerate(PROMPTS[:5]):
        kept = TOKENIZER.decode(chat.ids[number][chat.kept[number]])
        assert prompt.strip() in kept and len(kept) <= len(prompt) + 2
        assert len(chat.ids[number]) > len(plain.ids[number])
        assert len(everything.kept[number]) == len(everything.ids[number])
    ended = TOKENIZER.decode(chat.ids[0])
    assert ended.endswith("<think>\n\n</think>\n\n")
    assert TOKENIZER.decode(everything.ids[0]).endswith("<|im_start|>assistant\n")


def test_a_prompt_that_reads_like_the_template_keeps_its_own_tokens() -> None:
    tokens = tokens_of(["user", "assistant"], prompt_format="chat")
    for number, prompt in enumerate(("user", "assistant")):
        first = tokens.kept[number][0]
        assert first > 1, "the first tokens are the template's <|im_start|>user"
        assert TOKENIZER.decode(tokens.ids[number][tokens.kept[number]]) == prompt


def test_first_and_special_tokens_do_not_count(tmp_path: Path) -> None:
    tokens = tokens_of(PROMPTS[:5], prompt_format="chat", keep="all")
    extracted(small_model("qwen3"), tokens, ["resid_post.0"], tmp_path)
    store = ActivationStore(tmp_path, "resid_post.0")
    ids = np.concatenate(tokens.ids)
    special = np.isin(ids, [TOKENIZER.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>")])
    assert special.sum() >= 15
    assert not store.counted[special].any()
    assert not store.counted[store.offsets[:-1]].any()
    assert store.counted.sum() > len(ids) / 2


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gpt_neox", "gemma", "gemma2", "bloom", "falcon"])
@pytest.mark.parametrize("keep", ["prompt", "all"])
def test_a_shared_beginning_is_run_once_and_changes_nothing(family: str, keep: Any, tmp_path: Path) -> None:
    model = small_model(family)
    tokens = tokens_of(PROMPTS[:20], prompt_format="chat", keep=keep)
    points = ["resid_post.1", "layer_delta.2", "attn_out.1", "mlp_out.2"]
    counts = extract(
        model, tokens, [Point.parse(point) for point in points], tmp_path, batch_tokens=256, dtype=torch.float32
    )
    shared = len(TOKENIZER("<|im_start|>user\n")["input_ids"])
    assert counts["tokens_shared"] == shared
    rest = (
        0 if keep == "all" else len(TOKENIZER("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n").input_ids)
    )
    assert counts["tokens_run"] == counts["tokens_read"] - 20 * (shared + rest)
    found = [everything(ActivationStore(tmp_path, point)) for point in points[:2]]
    model.double()
    for rows, block, delta in ((found[0], 1, False), (found[1], 2, True)):
        alone = [seen_alone(model, block_name(family, block), ids) for ids in tokens.ids]
        expected = [(after - before if delta else after) for before, after in alone]
        kept = [rows[positions] for rows, positions in zip(expected, tokens.kept, strict=True)]
        assert relative_error(rows, torch.cat(kept)) <= 1e-3


def test_an_encoder_reads_the_whole_template(tmp_path: Path) -> None:
    model = small_model("bert")
    tokens = tokens_of(PROMPTS[:10], prompt_format="chat")
    counts = extract(model, tokens, [Point.parse("resid_post.1")], tmp_path, batch_tokens=256, dtype=torch.float32)
    assert (counts["tokens_shared"], counts["tokens_run"]) == (0, counts["tokens_read"])
    model.double()
    alone = [seen_alone(model, block_name("bert", 1), ids)[1] for ids in tokens.ids]
    expected = torch.cat([rows[kept] for rows, kept in zip(alone, tokens.kept, strict=True)])
    assert relative_error(everything(ActivationStore(tmp_path, "resid_post.1")), expected) <= 1e-4


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = tokens_of(PROMPTS)
    expected = extracted(small_model("qwen3"), tokens, ["resid_post.1"], tmp_path / "a")["resid_post.1"]
    model = small_model("qwen3")

    def small_gpu(_: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].numel() > 300:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(small_gpu, with_kwargs=True)
    found = extracted(model, tokens, ["resid_post.1"], tmp_path / "b", batch_tokens=1024)["resid_post.1"]
    assert relative_error(found, expected.double()) <= 1e-4
    assert "out of memory with" in capsys.readouterr().err


def test_a_prompt_that_alone_is_too_long_for_the_memory_is_named(tmp_path: Path) -> None:
    model = small_model("qwen3")

    def tiny_gpu(_: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(tiny_gpu, with_kwargs=True)
    tokens = tokens_of(PROMPTS)
    longest = IDS[max(range(len(PROMPTS)), key=lambda prompt: len(tokens.ids[prompt]))]
    with pytest.raises(UserError, match=rf"too little memory for prompt {longest} of \d+ tokens alone: lower extract"):
        extracted(model, tokens, ["resid_post.1"], tmp_path)


def test_a_model_that_computes_in_float16_is_told_to_use_a_wider_type(tmp_path: Path) -> None:
    model = small_model("qwen3").half()
    with torch.no_grad():
        for name in ("gate", "up", "down"):  # the MLP's output is more than float16 holds
            model.get_submodule(f"layers.0.mlp.{name}_proj").weight.mul_(500)
    with pytest.raises(
        UserError, match=r"for prompt id000, token \d+: set extract.compute_dtype to bfloat16 or float32"
    ):
        extracted(model, tokens_of(PROMPTS), ["resid_post.0"], tmp_path)


def test_relative_errors_are_those_of_the_activations() -> None:
    tokens = tokens_of(PROMPTS)
    points = [Point.parse("resid_post.0"), Point.parse("mlp_out.1")]
    model, other = small_model("qwen3"), small_model("qwen3")
    with torch.no_grad():
        other.get_submodule("layers.1.mlp.down_proj").weight.mul_(0.9)  # type: ignore[operator]
    errors = relative_errors(other, model, tokens, points, batch_tokens=256)
    assert errors["resid_post.0"] == 0
    assert errors["mlp_out.1"] == pytest.approx(0.1, rel=1e-4)


def test_the_stage_reports_how_far_a_quantised_models_activations_are_from_the_originals(tmp_path: Path) -> None:
    points = ["resid_post.0", "resid_post.1"]
    write_params(tmp_path, SMALL | {"extract.points": points})
    write_csv(tmp_path / "prompts.csv", sample_rows(100))
    save_small_model(tmp_path / "lm")
    save_small_model(tmp_path / "lm" / "unquantised")
    weights = load_file(tmp_path / "lm/model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    save_file(weights | {name: 1.5 * weights[name]}, tmp_path / "lm/model.safetensors", metadata={"format": "pt"})
    for stage in ("download", "filter", "fetch_model"):
        run_stage(stage, tmp_path)
    lock = tmp_path / "models/model.lock.json"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"unquantised": "lm/unquantised"}))
    run_stage("extract", tmp_path)
    errors = json.loads((tmp_path / "metrics/extract.json").read_text())["quantisation_error"]
    assert errors["resid_post.0"] == 0
    assert 0.001 < errors["resid_post.1"] < 0.5
