"""A model directory in Hugging Face format: what is read of it, whether it is whole, and loading it."""

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from pipeline.errors import UserError
from pipeline.model.hub import model_files

# named differently before transformers 4.56
_DTYPE_ARGUMENT = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def describe(directory: Path) -> dict[str, Any]:
    """Check a model directory; return its `architecture`, `layers`, `width`, `quantization` and `max_positions`.

    Raises: UserError when config, tokenizer or weights are missing or damaged.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory: set model.path to a model in Hugging Face format")
    config = load_config(directory)
    load_tokenizer(directory)
    _check_weights(directory)
    quantization = getattr(config, "quantization_config", None) or {}
    return {
        "architecture": config.model_type,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "quantization": f"{quantization['quant_method']} {quantization.get('bits')}-bit" if quantization else None,
        "max_positions": getattr(config, "max_position_embeddings", None),
    }


def load_config(directory: Path) -> Any:
    """The model's configuration. Raise UserError when it is missing or not that of a text transformer."""
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{directory}: config.json is missing or not a known transformer's ({_first_line(error)}): "
            "check the model directory"
        ) from None
    config = config.get_text_config()
    if config.is_encoder_decoder:
        raise UserError(f"{directory}: {config.model_type} is an encoder-decoder: choose a decoder or an encoder")
    if not getattr(config, "num_hidden_layers", None) or not getattr(config, "hidden_size", None):
        raise UserError(f"{directory}: {config.model_type} is not a text transformer: choose another model")
    return config


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raise UserError when there is none."""
    problem = f"{directory} has no tokenizer that loads"
    remedy = "add the tokenizer files (tokenizer.json, tokenizer_config.json) of the model"
    if not any(file.name.startswith(("tokenizer", "vocab", "spiece")) for file in model_files(directory)):
        raise UserError(f"{problem}: {remedy}")
    try:
        # transformers 4 does not know the class names that 5 saves; tokenizer.json is the same
        known = Version(transformers.__version__) >= Version("5") or not _saved_by_transformers_5(directory)
        kind: Any = AutoTokenizer if known else PreTrainedTokenizerFast
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise UserError(f"{problem} ({_first_line(error)}): {remedy}") from None
    return tokenizer


def _saved_by_transformers_5(directory: Path) -> bool:
    config = directory / "tokenizer_config.json"
    return config.is_file() and "TokenizersBackend" in config.read_text(encoding="utf-8")


def load_model(directory: Path, blocks: int, dtype: str, device: str) -> PreTrainedModel:
    """Load the first `blocks` transformer blocks, without a language-modelling head, ready for inference.

    Args:
        dtype: `float16`, `bfloat16`, `float32`, or `auto`: float32 on the CPU and for float32 checkpoints, else
            bfloat16 where the device has it. Never float16: residual streams grow beyond its 65,504.
        device: a torch device.

    GPTQ checkpoints load through transformers' own choice of backend.
    """
    config = _cut(load_config(directory), blocks)
    model, missing = _load(AutoModel, directory, config, dtype, device)
    if any("embed" in key for key in missing) and config.tie_word_embeddings:
        # saved as its tied language-modelling head alone, which only the model with the head reads
        model, missing = _load(AutoModelForCausalLM, directory, config, dtype, device)
        model = model.base_model
    # a pooler on top of the blocks is never read; anything else would be silently random
    missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise UserError(
            f"{directory}: the weights lack {missing[0]} (and {len(missing) - 1} more): fetch or copy the model again"
        )
    return model


def load_language_model(directory: Path, dtype: str, device: str, blocks: int | None = None) -> PreTrainedModel | None:
    """Load the model with its language-modelling head, ready for inference; None when it has none.

    Args: as of `load_model`, but without `blocks` all are loaded.
    """
    config = load_config(directory)
    if blocks:
        config = _cut(config, blocks)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    model, missing = _load(AutoModelForCausalLM, directory, config, dtype, device)
    return None if missing else model


def _cut(config: Any, blocks: int) -> Any:
    """The configuration of the first `blocks` blocks alone."""
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    return config


def _load(kind: Any, directory: Path, config: Any, dtype: str, device: str) -> tuple[Any, list[str]]:
    """The model, and what its files lack."""
    wanted = _compute_dtype(config, device) if dtype == "auto" else DTYPES[dtype]
    quiet_gptqmodel()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options: dict[str, Any] = {
        "config": config,
        _DTYPE_ARGUMENT: wanted,
        "device_map": {"": device},
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    try:
        model, report = kind.from_pretrained(directory, **options)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{directory}: the weights do not load ({_first_line(error)}): fetch or copy the model again"
        ) from None
    return model.eval().requires_grad_(False), sorted(report["missing_keys"])


def _compute_dtype(config: Any, device: str) -> torch.dtype:
    own = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    half = own in (torch.float16, torch.bfloat16) and device != "cpu"
    has_bfloat16 = not device.startswith("cuda") or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if half and has_bfloat16 else torch.float32


def quiet_gptqmodel() -> None:
    """Keep GPTQModel from logging its progress and settings; where it is not installed there is nothing to do."""
    try:
        from logbar import LogBar
    except ImportError:
        return
    LogBar.shared().setLevel("ERROR")


def pick_device(device: str) -> str:
    """`device`, where `auto` is the first of cuda, mps and cpu that is there. Raise UserError when it is not."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in available.items() if there)
    if not available[device.split(":", maxsplit=1)[0]]:
        raise UserError(f"extract.device = {device!r} is not available here: set it to auto or cpu")
    return device


def _check_weights(directory: Path) -> None:
    weights = [file for file in model_files(directory) if file.suffix == ".safetensors"]
    if not weights:
        raise UserError(f"{directory} has no .safetensors weights: convert the model (pickles are never loaded)")
    for file in weights:
        try:
            with safe_open(file, framework="pt"):  # reads the header and compares it with the file's size
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file} is damaged ({_first_line(error)}): delete it and fetch or copy the model again"
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
