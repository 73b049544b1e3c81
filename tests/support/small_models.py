"""Transformers of several families, built small from their configs with random weights, and prompts for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from helpers import make_tokenizer, sample_rows
from stores import everything
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.activations.extraction import extract
from pipeline.activations.store import ActivationStore
from pipeline.core.points import Point
from pipeline.lm.tokens import PromptTokens, tokenise
from pipeline.probes.attribution import Classifier, Linear

LAYERS, WIDTH = 3, 32
TOKENIZER = make_tokenizer()
ROWS = sample_rows(60)
PROMPTS = [row["prompt"] for row in ROWS]
IDS = [f"id{number:03d}" for number in range(len(PROMPTS))]

_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}
_GROUPED = _SIZES | {"num_key_value_heads": 1, "head_dim": 16}
# family -> name of its classes, config, name of its list of blocks
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "qwen3": ("Qwen3", _GROUPED, "layers"),
    "llama": ("Llama", _GROUPED, "layers"),
    "gpt2": ("GPT2", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": 256}, "h"),
    "gpt_neox": ("GPTNeoX", _SIZES, "layers"),
    "gpt_neox_sequential": ("GPTNeoX", _SIZES | {"use_parallel_residual": False}, "layers"),
    "gemma": ("Gemma", _GROUPED, "layers"),
    "gemma2": ("Gemma2", _GROUPED | {"sliding_window": 8}, "layers"),
    "olmo2": ("Olmo2", _SIZES, "layers"),
    "bloom": ("Bloom", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 2}, "h"),
    "falcon": ("Falcon", {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}, "h"),
    "bert": ("Bert", _SIZES, "encoder.layer"),
    "granite": ("Granite", _SIZES | {"residual_multiplier": 0.5}, "layers"),
}


def small_model(family: str) -> PreTrainedModel:
    """A model of a family in float32, its norms' weights random: norms of all 1 would hide one applied twice."""
    name, settings, _ = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(vocab_size=len(TOKENIZER), pad_token_id=0, **settings)
    model: PreTrainedModel = getattr(transformers, f"{name}Model")(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() == 1:
                weights.add_(0.5 * torch.randn_like(weights))
    return model.eval()


def block_name(family: str, layer: int) -> str:
    return f"{FAMILIES[family][2]}.{layer}"


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
    return {point: everything(ActivationStore(folder, point)) for point in points}


@torch.no_grad()
def seen_alone(model: PreTrainedModel, module: str, ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """First input and output (tokens, width) of a module for one unpadded prompt by itself, by plain hooks."""
    seen: dict[str, Tensor] = {}

    def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        state = args[0] if args else kwargs.get("hidden_states", output)
        seen.update(x=state.clone(), y=(output if torch.is_tensor(output) else output[0]).clone())

    handle = model.get_submodule(module).register_forward_hook(hook, with_kwargs=True)
    model(input_ids=torch.from_numpy(ids)[None])
    handle.remove()
    return seen["x"].reshape(len(ids), -1), seen["y"].reshape(len(ids), -1)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest over rows of ||found - expected|| / ||expected||."""
    return float(((found.double() - expected).norm(dim=1) / expected.norm(dim=1)).max())


def one_direction(pooling: str = "mean") -> Classifier:
    """A classifier on the first of the activation's dimensions."""
    return Classifier(Linear(pooling, np.eye(WIDTH)[0], 0.0), lambda x_TD: x_TD)
