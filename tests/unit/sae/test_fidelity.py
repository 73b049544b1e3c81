"""What a spliced reconstruction does to a language model, against runs with the activations replaced by hand."""

import math
from typing import Any

import pytest
import torch
from small_models import IDS, PROMPTS, TOKENIZER, WIDTH
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from pipeline.core.points import SITES, Point
from pipeline.lm.splice import Splice
from pipeline.lm.tokens import PromptTokens, tokenise
from pipeline.sae.fidelity import fidelity
from pipeline.sae.model import Sae


def language_model(family: str) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "vocab_size": len(TOKENIZER), "max_position_embeddings": 256}
    sizes |= {"initializer_range": 0.2}  # weights large enough for each sublayer to matter
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(num_key_value_heads=1, head_dim=16, **sizes)).eval()
    if family == "bert":
        return BertLMHeadModel(BertConfig(**sizes)).eval()
    return GPT2LMHeadModel(
        GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=256, vocab_size=len(TOKENIZER), initializer_range=0.2)
    ).eval()


def prompts(count: int) -> PromptTokens:
    return tokenise(TOKENIZER, IDS[:count], PROMPTS[:count], max_tokens=60)


def copying_sae(noise: float = 0.0) -> Sae:
    """Latents that hold x and -x apart, so that the reconstruction is x itself, or x times (1 + noise)."""
    eye = torch.eye(WIDTH)
    return Sae(
        "standard",
        {
            "W_enc": torch.cat([eye, -eye], dim=1),
            "b_enc": torch.zeros(2 * WIDTH),
            "W_dec": (1 + noise) * torch.cat([eye, -eye]),
            "b_dec": torch.zeros(WIDTH),
        },
    )


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
@pytest.mark.parametrize("site", SITES)
def test_a_perfect_reconstruction_recovers_everything_and_zeros_nothing(family: str, site: str) -> None:
    found = fidelity(language_model(family), prompts(20), Point.parse(f"{site}.1"), math.inf, copying_sae(), range(20))
    assert found is not None
    assert found["ce_recovered"] == pytest.approx(1, abs=1e-3)
    assert found["kl_recovered"] == pytest.approx(1, abs=1e-4)
    assert found["kl_zero"] > 1e-4 and found["kl_sae"] < 1e-4 * max(found["kl_zero"], 1)


def test_a_reconstruction_of_nothing_is_a_zero_ablation() -> None:
    found = fidelity(
        language_model("qwen3"), prompts(10), Point.parse("mlp_out.0"), math.inf, copying_sae(-1.0), range(10)
    )
    assert found is not None
    assert found["ce_sae"] == pytest.approx(found["ce_zero"])
    assert found["kl_recovered"] == pytest.approx(0, abs=1e-6)


def test_the_figures_are_those_of_each_prompt_alone() -> None:
    model, tokens = language_model("gpt2"), prompts(6)
    sae = copying_sae(0.3)
    found = fidelity(model, tokens, Point.parse("resid_post.0"), math.inf, sae, range(6))
    clean, spliced, kl, count = 0.0, 0.0, 0.0, 0
    model.requires_grad_(False)
    for ids in tokens.ids:
        inputs = torch.from_numpy(ids).long()[None]
        plain = model(input_ids=inputs).logits[0].log_softmax(-1)

        def change(_: Any, __: Any, output: Any) -> Any:
            state = (output if torch.is_tensor(output) else output[0]).clone()
            state[:, 1:] = sae.decode(sae.encode(state[:, 1:]))
            return state if torch.is_tensor(output) else (state, *output[1:])

        handle = model.transformer.h[0].register_forward_hook(change)
        other = model(input_ids=inputs).logits[0].log_softmax(-1)
        handle.remove()
        after = inputs[0, 2:]
        rows = torch.arange(len(after))
        clean -= float(plain[1:-1][rows, after].sum())
        spliced -= float(other[1:-1][rows, after].sum())
        kl += float((plain[1:-1].exp() * (plain[1:-1] - other[1:-1])).sum())
        count += len(after)
    assert found is not None
    assert found["ce"] == pytest.approx(clean / count, rel=1e-4)
    assert found["ce_sae"] == pytest.approx(spliced / count, rel=1e-4)
    assert found["kl_sae"] == pytest.approx(kl / count, rel=1e-3)


def test_only_the_chosen_tokens_are_replaced_and_the_hooks_go() -> None:
    model = language_model("qwen3")
    ids = torch.arange(10, 20)[None]
    where = torch.zeros(1, 10, dtype=torch.bool)
    where[0, 6:] = True

    def logits() -> Tensor:
        result: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].detach()
        return result

    plain = logits()
    with Splice(model, Point.parse("attn_out.0")).of(where, torch.zeros_like):
        changed = logits()
    torch.testing.assert_close(changed[:6], plain[:6])
    assert (changed[6:] - plain[6:]).abs().max() > 1e-4
    assert torch.equal(logits(), plain)


def test_an_encoder_has_no_such_figures() -> None:
    assert (
        fidelity(language_model("bert"), prompts(4), Point.parse("resid_post.0"), math.inf, copying_sae(), range(4))
        is None
    )
