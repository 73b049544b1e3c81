"""Activations are those of the model, whatever the batch, the padding and the order; and all of them are there."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import make_tokenizer, sample_rows
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
)

from pipeline.activations.batches import length_sorted_batches
from pipeline.activations.capture import capturing
from pipeline.activations.extract import extract
from pipeline.activations.store import ActivationStore
from pipeline.activations.tokens import PromptTokens, tokenise
from pipeline.errors import UserError
from pipeline.points import SITES, Point

LAYERS, WIDTH = 3, 32
TOKENIZER = make_tokenizer()
ROWS = sample_rows(60)
PROMPTS = [row["prompt"] for row in ROWS]
IDS = [f"id{number:03d}" for number in range(len(PROMPTS))]


def small_model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": len(TOKENIZER)}
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    if kind == "gpt2":
        model: PreTrainedModel = GPT2Model(
            GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=256, **common)
        )
    elif kind == "bert":
        model = BertModel(BertConfig(**sizes, **common))
    elif kind == "llama":
        model = LlamaModel(LlamaConfig(num_key_value_heads=1, **sizes, **common))
    else:
        model = Qwen3Model(Qwen3Config(num_key_value_heads=1, head_dim=16, **sizes, **common))
    with torch.no_grad():  # norms of all 1 would hide a final norm that is applied twice
        for name, weights in model.named_parameters():
            if "norm" in name.lower() or "ln_" in name:
                weights.add_(0.5 * torch.randn_like(weights))
    return model.eval()


def embeddings(model: PreTrainedModel) -> Tensor:
    weights = model.get_input_embeddings().weight
    assert isinstance(weights, Tensor)
    return weights


def tokens_of(prompts: list[str], **options: Any) -> PromptTokens:
    return tokenise(TOKENIZER, IDS[: len(prompts)], prompts, max_tokens=options.pop("max_tokens", 200), **options)


def extracted(
    model: PreTrainedModel, tokens: PromptTokens, points: list[str], folder: Path, **options: Any
) -> dict[str, Tensor]:
    settings: dict[str, Any] = {"batch_tokens": 256, "dtype": torch.float32} | options
    extract(model, tokens, [Point.parse(point) for point in points], folder, **settings)
    return {point: ActivationStore(folder, point).read() for point in points}


@torch.no_grad()
def alone(model: PreTrainedModel, ids: np.ndarray, block: int) -> tuple[Tensor, Tensor]:
    """Input and output of a block for one unpadded prompt by itself, seen by plain hooks."""
    seen: dict[str, Tensor] = {}
    blocks = {"bert": "encoder.layer", "gpt2": "h"}.get(model.config.model_type, "layers")
    module = model.get_submodule(f"{blocks}.{block}")
    first = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(x=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    second = module.register_forward_hook(lambda _, __, out: seen.update(y=out if torch.is_tensor(out) else out[0]))
    model(input_ids=torch.from_numpy(ids)[None])
    first.remove()
    second.remove()
    return seen["x"][0], seen["y"][0]


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "bert"])
def test_stored_rows_are_those_of_each_prompt_alone(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    tokens = tokens_of(PROMPTS)
    found = extracted(model, tokens, ["resid_post.1", "layer_delta.1"], tmp_path)
    before, after = zip(*(alone(model, ids, 1) for ids in tokens.ids), strict=True)
    for point, expected in (
        ("resid_post.1", torch.cat(after)),
        ("layer_delta.1", torch.cat(after) - torch.cat(before)),
    ):
        error = (found[point] - expected).norm(dim=1) / expected.norm(dim=1)
        assert error.max() <= 1e-4, point


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_the_last_blocks_delta_is_not_a_difference_with_the_normed_final_state(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    tokens = tokens_of(PROMPTS[:1])
    last = LAYERS - 1
    delta = extracted(model, tokens, [f"layer_delta.{last}"], tmp_path)[f"layer_delta.{last}"]
    before, after = alone(model, tokens.ids[0], last)
    torch.testing.assert_close(delta, after - before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        states = model(input_ids=torch.from_numpy(tokens.ids[0])[None], output_hidden_states=True).hidden_states
    trap = (states[-1] - states[-2])[0]
    assert (delta - trap).norm() / delta.norm() > 0.1


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
    rows = store.read()
    first, again = (rows[store.offsets[n] : store.offsets[n + 1]] for n in (3, len(prompts) - len(PROMPTS) + 3))
    torch.testing.assert_close(first, again, rtol=1e-2, atol=1e-2)


def test_batches_stay_within_the_budget_and_hold_each_prompt_once() -> None:
    lengths = [len(prompt) for prompt in PROMPTS]
    batches = list(length_sorted_batches(lengths, 300))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 300 or len(batch) == 1 for batch in batches)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2"])
def test_attention_and_mlp_outputs_sum_to_the_blocks_delta(kind: str, tmp_path: Path) -> None:
    points = [f"{site}.1" for site in SITES]
    found = extracted(small_model(kind), tokens_of(PROMPTS[:5]), points, tmp_path)
    torch.testing.assert_close(found["attn_out.1"] + found["mlp_out.1"], found["layer_delta.1"], rtol=1e-3, atol=1e-5)


def test_a_site_that_cannot_be_found_lists_the_modules() -> None:
    model = small_model("bert")
    expected = r"mlp_out is not found in BertLayer.*attention, intermediate, output"
    with pytest.raises(UserError, match=expected), capturing(model, [Point.parse("mlp_out.0")]):
        pass
    with pytest.raises(UserError, match="attn_out is not found"), capturing(model, [Point.parse("attn_out.0")]):
        pass


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


def test_first_and_special_tokens_are_marked_as_not_usable(tmp_path: Path) -> None:
    tokens = tokens_of(PROMPTS[:5], prompt_format="chat", keep="all")
    extracted(small_model("qwen3"), tokens, ["resid_post.0"], tmp_path)
    store = ActivationStore(tmp_path, "resid_post.0")
    ids = np.concatenate(tokens.ids)
    special = np.isin(ids, [TOKENIZER.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>")])
    assert special.sum() >= 15
    assert not store.usable[special].any()
    assert not store.usable[store.offsets[:-1]].any()
    assert store.usable.sum() > len(ids) / 2
