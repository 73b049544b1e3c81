"""Every site holds what it says on every family of transformers, against plain float64 hooks prompt by prompt."""

from pathlib import Path

import pytest
import torch
from small_models import (
    FAMILIES,
    LAYERS,
    PROMPTS,
    block_name,
    extracted,
    relative_error,
    seen_alone,
    small_model,
    tokens_of,
)

from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.lm.blocks import find_blocks
from pipeline.lm.capture import Capture

# the modules whose outputs are added to the residual stream, as the families' papers and sources have them
ADDED = {
    "qwen3": ("self_attn", "mlp"),
    "llama": ("self_attn", "mlp"),
    "gpt2": ("attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
    "gpt_neox_sequential": ("attention", "mlp"),
    "gemma": ("self_attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon": ("self_attention", "mlp"),
    "bert": ("attention.output.dense", "output.dense"),
}
NORMED_IN_THE_BLOCK = {"bert"}  # whose delta is not the sum of what is added


@pytest.mark.parametrize("layer", [1, LAYERS - 1])
@pytest.mark.parametrize("family", ADDED)
def test_rows_are_those_of_each_prompt_alone_in_float64(family: str, layer: int, tmp_path: Path) -> None:
    model = small_model(family)
    tokens = tokens_of(PROMPTS[:20])
    points = [f"{site}.{layer}" for site in ("resid_post", "layer_delta", "attn_out", "mlp_out")]
    found = extracted(model, tokens, points, tmp_path)
    model.double()
    block = block_name(family, layer)
    expected: dict[str, list[torch.Tensor]] = {point: [] for point in points}
    for ids in tokens.ids:
        before, after = seen_alone(model, block, ids)
        attention, mlp = (seen_alone(model, f"{block}.{name}", ids)[1] for name in ADDED[family])
        for point, rows in zip(points, (after, after - before, attention, mlp), strict=True):
            expected[point].append(rows)
    for point in points:
        assert relative_error(found[point], torch.cat(expected[point])) <= 1e-4, point
    if family not in NORMED_IN_THE_BLOCK:
        both = found[points[2]] + found[points[3]]
        torch.testing.assert_close(both, found[points[1]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "gpt_neox", "gemma", "bert"])
def test_resid_post_is_the_models_own_hidden_state(family: str, tmp_path: Path) -> None:
    model = small_model(family)
    tokens = tokens_of(PROMPTS[:20])
    found = extracted(model, tokens, ["resid_post.0"], tmp_path)["resid_post.0"]
    model.double()
    with torch.no_grad():
        states = [model(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True) for ids in tokens.ids]
    assert relative_error(found, torch.cat([state.hidden_states[1][0] for state in states])) <= 1e-4


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma", "gpt_neox"])
def test_the_last_blocks_delta_is_not_a_difference_with_the_normed_final_state(family: str, tmp_path: Path) -> None:
    model = small_model(family)
    tokens = tokens_of(PROMPTS[:1])
    last = LAYERS - 1
    delta = extracted(model, tokens, [f"layer_delta.{last}"], tmp_path)[f"layer_delta.{last}"]
    before, after = seen_alone(model, block_name(family, last), tokens.ids[0])
    torch.testing.assert_close(delta, after - before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        states = model(input_ids=torch.from_numpy(tokens.ids[0])[None], output_hidden_states=True).hidden_states
    trap = (states[-1] - states[-2])[0]
    assert (delta - trap).norm() / delta.norm() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_of_every_family_are_found(family: str) -> None:
    model = small_model(family)
    assert find_blocks(model, LAYERS) is model.get_submodule(FAMILIES[family][2])


@pytest.mark.parametrize("site", ["attn_out", "mlp_out"])
def test_a_site_that_cannot_be_found_lists_the_modules(site: str) -> None:
    # Granite adds 0.5 times what its attention puts out, which no module does
    with pytest.raises(UserError, match=rf"site {site} is not found in GraniteDecoderLayer.*self_attn.*mlp.down_proj"):
        Capture(small_model("granite"), [Point.parse(f"{site}.0")])


def test_a_model_that_fails_while_it_is_looked_into_leaves_nothing_behind() -> None:
    model = small_model("qwen3")
    handle = model.get_submodule("layers.1.mlp.down_proj").register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Capture(model, [Point.parse("mlp_out.1")])
    handle.remove()
    assert not torch.overrides._get_current_function_mode_stack()
    assert not model.get_submodule("layers.1")._forward_hooks


def test_a_model_without_blocks_lists_its_module_lists() -> None:
    with pytest.raises(UserError, match=r"Qwen3Model has no list of 7 transformer blocks: .* layers \(3\)"):
        find_blocks(small_model("qwen3"), 7)
