"""How fast activations are extracted, beside the usual loop, TransformerLens, SAELens and the bare forward pass.

All run in one process, on the same prompts, model and machine, one after another and again (medians are reported):

usual_loop   dataset order, 16 prompts padded to the longest, output_hidden_states=True on the causal LM
peer         the faster of TransformerLens's and SAELens's run_with_cache on the same batches as the usual loop,
             stopped after the layer: their way that gives the same activations prompt by prompt
extractor    extract of pipeline.activations, written to disk
bound        bare forwards of the model cut after the layer, on the extractor's batches: no hooks, no writing

Only the extractor writes; the others keep the rows in memory. Tokens are real ones, padding aside.
--memory instead compares the peak memory of an extraction with one of ten times as many prompts.
"""

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from pipeline.activations.extraction import extract
from pipeline.activations.store import ActivationStore
from pipeline.core.points import Point
from pipeline.lm.tokens import PromptTokens

# tokens of a prompt at quantiles of the real prompt set (mean 26, median 16)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
LENGTHS = (3, 6, 11, 16, 30, 49, 79, 157, 384, 700)
BATCH = 16
SHAPES: dict[str, dict[str, Any]] = {
    "50m": {
        "vocab_size": 40_960,
        "hidden_size": 512,
        "intermediate_size": 1_792,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
    "qwen3-4b": {
        "vocab_size": 151_936,
        "hidden_size": 2_560,
        "intermediate_size": 9_728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--memory", action="store_true", help="peak memory at PROMPTS and at ten times as many")
    parser.add_argument("--prompts", type=int, help="prompts to extract (default: 400, with --memory 5000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: %(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="50m", help="model (default: %(default)s)")
    parser.add_argument("--layer", type=int, help="resid_post of this block (default: the middle one)")
    parser.add_argument("--batch-tokens", type=int, default=896, help="budget of a batch (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--extract-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layer is None:
        options.layer = SHAPES[options.shape]["num_hidden_layers"] // 2 - 1
    if options.prompts is None:
        options.prompts = 5_000 if options.memory else 400
    if options.extract_only:
        result: dict[str, Any] = one_extraction(options)
    elif options.memory:
        result = compare_memory(options)
    else:
        result = compare_speed(options)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def compare_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of each way, whose rows are checked to be the same."""
    model, cut, tokens = make(options)
    real = sum(len(ids) for ids in tokens.ids)
    batches = extractor_batches(cut, tokens, options)
    usual = [range(start, min(start + BATCH, len(tokens.ids))) for start in range(0, len(tokens.ids), BATCH)]
    padded = [right_padded(tokens, batch, options.device) for batch in usual]
    ways: dict[str, Callable[[], Tensor | None]] = {
        "usual_loop": lambda: usual_loop(model, padded, tokens, usual, options),
        "transformer_lens": lambda: run_with_cache(
            lens, f"blocks.{options.layer}.hook_out", padded, tokens, usual, options
        ),
        "sae_lens": lambda: run_with_cache(proxy, f"model.layers.{options.layer}", padded, tokens, usual, options),
        "extractor": lambda: extractor(cut, tokens, options),
        "bound": lambda: bound(cut, batches),
    }
    lens, proxy = wrap(model, options)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rows: dict[str, Tensor] = {}
    for repeat in range(options.repeats + 1):  # the first one warms up
        for name, way in ways.items():
            print(f"{name}, run {repeat} of {options.repeats}", file=sys.stderr)
            start = time.perf_counter()
            found = way()
            synchronise(options.device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
            if found is not None:
                rows[name] = found
    errors = {
        name: float(((found - rows["usual_loop"]).norm(dim=1) / rows["usual_loop"].norm(dim=1)).max())
        for name, found in rows.items()
    }
    speed = {name: real / statistics.median(each) for name, each in seconds.items()}
    peers = {name: speed.pop(name) for name in ("transformer_lens", "sae_lens")}
    speed["peer"] = max(peers.values())
    in_usual, in_ours = sum(ids.numel() for ids, _ in padded), sum(ids.numel() for ids, _ in batches)
    result = {
        "tokens_per_second": {name: round(each, 1) for name, each in (speed | peers).items()},
        "extractor_over": {
            name: round(speed["extractor"] / speed[name], 3) for name in ("usual_loop", "peer", "bound")
        },
        "padding_share": {"usual_loop": round(1 - real / in_usual, 3), "extractor": round(1 - real / in_ours, 3)},
        "largest_relative_error": errors,
        "seconds": {name: [round(one, 3) for one in each] for name, each in seconds.items()},
        "prompts": len(tokens.ids),
        "tokens": real,
        **about(options, model, cut),
    }
    if options.device.startswith("cuda"):
        result["peak_vram_gb"] = {
            "extractor": peak_vram(lambda: extractor(cut, tokens, options)),
            "usual_loop": peak_vram(lambda: usual_loop(model, padded, tokens, usual, options)),
        }
    return result


def make(options: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedModel, PromptTokens]:
    """The causal LM, the same model cut after the layer (sharing its weights), and prompts."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    config = Qwen3Config(**SHAPES[options.shape], tie_word_embeddings=True, max_position_embeddings=1024)
    with torch.device(options.device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    config_cut = Qwen3Config(**{**config.to_dict(), "num_hidden_layers": options.layer + 1, "layer_types": None})
    with torch.device("meta"):
        cut = Qwen3Model(config_cut).eval()
    cut.load_state_dict({k: v for k, v in model.model.state_dict().items() if k in cut.state_dict()}, assign=True)
    cut.rotary_emb = model.model.rotary_emb
    return model, cut, prompts(options.prompts, config.vocab_size)


def prompts(count: int, vocabulary: int) -> PromptTokens:
    """Random tokens in prompts as long as the real ones."""
    rng = np.random.default_rng(0)
    lengths = np.exp(np.interp(rng.random(count), QUANTILES, np.log(LENGTHS))).round().astype(int)
    ids = [rng.integers(3, vocabulary, length, dtype=np.int32) for length in lengths]
    names = [f"prompt{number}" for number in range(count)]
    return PromptTokens(names, ids, [np.arange(len(each), dtype=np.int32) for each in ids], [0])


def right_padded(tokens: PromptTokens, batch: range, device: str) -> tuple[Tensor, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(tokens.ids[prompt]).long() for prompt in batch], batch_first=True
    )
    lengths = torch.tensor([len(tokens.ids[prompt]) for prompt in batch])
    return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(device)


def real_rows(state: Tensor, tokens: PromptTokens, batch: range) -> Tensor:
    """The rows (tokens, width) of a padded batch's real tokens, on the host in float16."""
    return torch.cat(
        [state[row, : len(tokens.ids[prompt])].to("cpu", torch.float16) for row, prompt in enumerate(batch)]
    )


@torch.inference_mode()
def usual_loop(
    model: PreTrainedModel,
    padded: list[tuple[Tensor, Tensor]],
    tokens: PromptTokens,
    batches: list[range],
    options: argparse.Namespace,
) -> Tensor:
    rows = []
    for (ids, mask), batch in zip(padded, batches, strict=True):
        output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        rows.append(real_rows(output.hidden_states[options.layer + 1], tokens, batch))
    return torch.cat(rows).float()


def wrap(model: PreTrainedModel, options: argparse.Namespace) -> tuple[Any, Any]:
    """The model as TransformerLens and as SAELens wrap it."""
    from sae_lens.load_model import HookedProxyLM
    from transformer_lens.model_bridge import TransformerBridge

    # both want a tokenizer, which they do not use on token ids
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<s>": 0}, unk_token="<s>")),
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<s>"),
        add_bos_token=True,
        name_or_path="none",
    )
    lens = TransformerBridge.boot_transformers(
        "Qwen/Qwen3-0.6B", hf_model=copy.deepcopy(model), tokenizer=tokenizer, dtype=model.dtype
    )
    proxy = HookedProxyLM(copy.deepcopy(model), tokenizer, hook_names=[f"model.layers.{options.layer}"])
    return lens, proxy


@torch.inference_mode()
def run_with_cache(
    wrapped: Any,
    hook: str,
    padded: list[tuple[Tensor, Tensor]],
    tokens: PromptTokens,
    batches: list[range],
    options: argparse.Namespace,
) -> Tensor:
    rows = []
    for (ids, _), batch in zip(padded, batches, strict=True):
        # right padding after causal attention needs no mask
        _, cache = wrapped.run_with_cache(ids, names_filter=[hook], stop_at_layer=options.layer + 1)
        rows.append(real_rows(cache[hook], tokens, batch))
    return torch.cat(rows).float()


def extractor(cut: PreTrainedModel, tokens: PromptTokens, options: argparse.Namespace) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        point = Point("resid_post", options.layer)
        extract(cut, tokens, [point], Path(folder), batch_tokens=options.batch_tokens)
        return ActivationStore(Path(folder), str(point)).read().float()


def extractor_batches(
    cut: PreTrainedModel, tokens: PromptTokens, options: argparse.Namespace
) -> list[tuple[Tensor, Tensor]]:
    """The batches that the extractor runs, seen by a hook."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = cut.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((kwargs["input_ids"], kwargs["attention_mask"])), with_kwargs=True
    )
    extractor(cut, tokens, options)
    handle.remove()
    return seen[2:]  # the first two are trials of whether the model is causal


@torch.inference_mode()
def bound(cut: PreTrainedModel, batches: list[tuple[Tensor, Tensor]]) -> None:
    for ids, mask in batches:
        cut(input_ids=ids, attention_mask=mask, use_cache=False)


def one_extraction(options: argparse.Namespace) -> dict[str, Any]:
    """Extract, with nothing else in this process, and give its peak memory."""
    model, cut, tokens = make(options)
    del model
    with tempfile.TemporaryDirectory() as folder:
        extract(cut, tokens, [Point("resid_post", options.layer)], Path(folder), batch_tokens=options.batch_tokens)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"prompts": options.prompts, "tokens": sum(len(ids) for ids in tokens.ids), "peak_rss_mb": round(peak, 1)}


def compare_memory(options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.extract", "--extract-only", "--shape", options.shape]
    command += ["--layer", str(options.layer), "--device", options.device, "--batch-tokens", str(options.batch_tokens)]
    few, many = (
        json.loads(
            subprocess.run([*command, "--prompts", str(count)], stdout=subprocess.PIPE, text=True, check=True).stdout
        )
        for count in (options.prompts, 10 * options.prompts)
    )
    return {"few": few, "many": many, "growth": round(many["peak_rss_mb"] / few["peak_rss_mb"] - 1, 4)}


def peak_vram(action: Callable[[], object]) -> float:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    action()
    return round(torch.cuda.max_memory_allocated() / 1e9, 3)


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def about(options: argparse.Namespace, model: PreTrainedModel, cut: PreTrainedModel) -> dict[str, Any]:
    return {
        "model": {
            "shape": options.shape,
            "parameters": sum(weights.numel() for weights in model.parameters()),
            "parameters_cut": sum(weights.numel() for weights in cut.parameters()),
            "layer": options.layer,
            "dtype": str(model.dtype),
        },
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
