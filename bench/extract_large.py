"""Extraction from a model of Qwen3-4B's size with random weights, in 16 bits or 4-bit GPTQ: speed and peak memory.

For a GPU; --shape 50m tries it on a CPU. A checkpoint is written to a temporary folder (8 GB in 16 bits), loaded
as the pipeline loads models, once up to the middle block and once whole, each in a process of its own, and run over
prompts as long as the real ones. The bound is bare forwards on the extractor's batches.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from bench.extract import SHAPES, bound, extractor, extractor_batches, prompts, synchronise
from pipeline.lm.load import load_model

GROUP = 64  # weights that share a scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-4b", help="default: %(default)s")
    parser.add_argument("--gptq", action="store_true", help="4-bit GPTQ instead of 16 bits")
    parser.add_argument("--prompts", type=int, default=2_000, help="default: %(default)s")
    parser.add_argument("--batch-tokens", type=int, default=896, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--blocks", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.checkpoint:
        print(json.dumps(measure(options)))
        return
    layers = SHAPES[options.shape]["num_hidden_layers"]
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), options.shape, options.gptq)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e9
        arguments = [sys.executable, "-m", "bench.extract_large", *sys.argv[1:], "--checkpoint", folder]
        runs = [
            json.loads(
                subprocess.run([*arguments, "--blocks", str(n)], stdout=subprocess.PIPE, text=True, check=True).stdout
            )
            for n in (layers // 2, layers)
        ]
    result = {"shape": options.shape, "gptq": options.gptq, "checkpoint_gb": round(size, 3), "runs": runs}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Load the first blocks and extract from the last of them."""
    model = load_model(options.checkpoint, options.blocks, "auto", options.device)
    tokens = prompts(options.prompts, model.config.vocab_size)
    options.layer = options.blocks - 1
    real = sum(len(ids) for ids in tokens.ids)
    batches = extractor_batches(model, tokens, options)  # which warms up as well
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    seconds: dict[str, list[float]] = {"extractor": [], "bound": []}
    for _ in range(options.repeats):
        for name in seconds:
            start = time.perf_counter()
            extractor(model, tokens, options) if name == "extractor" else bound(model, batches)
            synchronise(options.device)
            seconds[name].append(time.perf_counter() - start)
    speed = {name: real / sorted(each)[len(each) // 2] for name, each in seconds.items()}
    cuda = options.device.startswith("cuda")
    return {
        "blocks": options.blocks,
        "tokens": real,
        "tokens_per_second": {name: round(each, 1) for name, each in speed.items()},
        "extractor_over_bound": round(speed["extractor"] / speed["bound"], 3),
        "peak_vram_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3) if cuda else None,
        "peak_rss_gb": round(loaded, 3),
        "dtype": str(model.dtype),
        "kernel": type(model.get_submodule("layers.0.mlp.down_proj")).__name__,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
    }


def write_checkpoint(folder: Path, shape: str, gptq: bool) -> None:
    """A Qwen3 with random weights, in bfloat16 or in GPTQ's 4-bit format (the zero point is 8)."""
    torch.manual_seed(0)
    config = Qwen3Config(**SHAPES[shape], tie_word_embeddings=True, max_position_embeddings=1024)
    config.architectures = ["Qwen3ForCausalLM"]
    with torch.device("meta"):
        empty = Qwen3ForCausalLM(config)
    tensors: dict[str, Tensor] = {}
    for name, weights in empty.state_dict().items():
        if name == "lm_head.weight":
            continue
        if gptq and name.endswith("_proj.weight"):
            out, inner = weights.shape
            prefix = name.removesuffix(".weight")
            tensors[f"{prefix}.qweight"] = torch.randint(-(2**31), 2**31, (inner // 8, out), dtype=torch.int32)
            tensors[f"{prefix}.qzeros"] = torch.full((inner // GROUP, out // 8), 0x77777777, dtype=torch.int32)
            tensors[f"{prefix}.scales"] = torch.full((inner // GROUP, out), 0.02 / 4.6, dtype=torch.float16)
            tensors[f"{prefix}.g_idx"] = torch.arange(inner, dtype=torch.int32) // GROUP
        elif weights.dim() == 1:
            tensors[name] = torch.ones(weights.shape, dtype=torch.bfloat16)
        else:
            tensors[name] = (0.02 * torch.randn(weights.shape)).bfloat16()
    if gptq:
        config.quantization_config = {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP,
            "desc_act": False,
            "sym": True,
            "checkpoint_format": "gptq",
        }
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
