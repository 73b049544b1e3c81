"""Load a model directory in Hugging Face format, and check what is read of it."""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils import logging

from pipeline.core.errors import UserError, shown
from pipeline.lm.faults import explained, first_line
from pipeline.lm.files import model_files
from pipeline.lm.view import read_settings, viewed

# named differently before transformers 4.56
_DTYPE_ARGUMENT = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
# transformers' own classes, and no request to the hub; on a terminal it would else ask whether to run a model's code
_OWN_CODE_AND_FILES = {"trust_remote_code": False, "local_files_only": True}
# what a text transformer has, far above the largest there is
_LARGEST = {"num_hidden_layers": 10_000, "hidden_size": 1_000_000, "vocab_size": 100_000_000}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def describe(directory: Path) -> dict[str, Any]:
    """Check a model directory. Return its `architecture`, `layers`, `width`, `quantization` and `max_positions`.

    Raises: UserError when config, tokenizer or weights are missing or damaged, or do not make a model.
    """
    config = load_config(directory)
    load_tokenizer(directory)
    _check_weights(directory)
    _try_to_build(directory, config)
    quantization = getattr(config, "quantization_config", None) or {}
    return {
        "architecture": config.model_type,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "quantization": f"{quantization['quant_method']} {quantization.get('bits')}-bit" if quantization else None,
        "max_positions": getattr(config, "max_position_embeddings", None),
    }


def load_config(directory: Path) -> Any:
    """Load the model's configuration with transformers' own class. Code that comes with a model is never run.

    Raises: UserError when it is missing, or not that of a text transformer.
    """
    problem, remedy = f"{directory}: config.json is missing or not a known transformer's", "check the model directory"
    with _loading(directory, problem, remedy, with_weights=False) as view:
        if not (view / "config.json").is_file():
            raise UserError(f"{problem}: {remedy}")
        kind = read_settings(view / "config.json").get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise UserError(
                f"{problem} (model_type = {shown(kind)}; code that comes with a model is never run): {remedy}"
            )
        config: Any = AutoConfig.from_pretrained(view, **_OWN_CODE_AND_FILES).get_text_config()
        _check_sizes(directory, config)
    return config


def _check_sizes(directory: Path, config: Any) -> None:
    if config.is_encoder_decoder:
        raise UserError(f"{directory}: {config.model_type} is an encoder-decoder: choose a decoder or an encoder")
    for name, most in _LARGEST.items():
        size = getattr(config, name, None)
        if size is None:
            raise UserError(f"{directory}: {config.model_type} is not a text transformer: choose another model")
        if type(size) is not int or not 1 <= size <= most:
            raise UserError(f"{directory}/config.json: {name} = {shown(size)} is not an integer of 1 to {most}")
    positions = getattr(config, "max_position_embeddings", None)
    if positions not in (None, -1) and (type(positions) is not int or positions < 1):  # both mean: no limit
        raise UserError(f"{directory}/config.json: max_position_embeddings = {shown(positions)} is no number of tokens")
    types = getattr(config, "layer_types", None)
    if types is not None and len(types) != config.num_hidden_layers:
        raise UserError(
            f"{directory}/config.json: layer_types has {len(types)} entries for {config.num_hidden_layers} layers"
        )
    quantization = getattr(config, "quantization_config", None)
    if quantization and not AutoHfQuantizer.supports_quant_method(quantization):
        raise UserError(f"{directory}/config.json: quantization_config names an unknown quant_method")


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer. Raise UserError when there is none, or when it does not work."""
    problem = f"{directory} has no tokenizer that loads"
    remedy = "add the tokenizer files (tokenizer.json, tokenizer_config.json) of the model"
    if not any(file.name.startswith(("tokenizer", "vocab", "spiece")) for file in model_files(directory)):
        raise UserError(f"{problem}: {remedy}")
    # compiled code that panics writes to the system's stderr, past Python
    with (
        _silent_stderr(),
        _loading(directory, problem, remedy, with_weights=False) as view,
    ):  # its class may be named as a model's
        # transformers 4 does not know the class names that 5 saves; tokenizer.json is the same
        known = Version(transformers.__version__) >= Version("5") or not _saved_by_transformers_5(view)
        kind: Any = AutoTokenizer if known else PreTrainedTokenizerFast
        tokenizer = kind.from_pretrained(view, **_OWN_CODE_AND_FILES)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TypeError(f"its class, {type(tokenizer).__name__}, is not a tokenizer's")
        limit: Any = tokenizer.model_max_length
        if type(limit) not in (int, float) or limit != limit:
            raise TypeError(f"model_max_length = {shown(limit)} is not a number")
        tokenizer("a")
        _ = tokenizer.all_special_ids
    return tokenizer


@contextmanager
def _silent_stderr() -> Iterator[None]:
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _saved_by_transformers_5(directory: Path) -> bool:
    config = directory / "tokenizer_config.json"
    return config.is_file() and "TokenizersBackend" in config.read_text(encoding="utf-8")


def _try_to_build(directory: Path, config: Any) -> None:
    """Build one block without memory for its weights, to see whether its settings fit together before loading."""
    config = copy.deepcopy(config)
    vars(config).pop("quantization_config", None)
    with explained(f"{directory}: config.json does not make a model", "fetch or copy the model again"):
        with torch.device("meta"):
            model = AutoModel.from_config(_cut(config, 1), trust_remote_code=False)
        embeddings = model.get_input_embeddings()
    if not isinstance(embeddings, nn.Embedding):
        raise UserError(f"{directory}: {config.model_type} is not a text transformer: choose another model")
    bits = 8 * sum(file.stat().st_size for file in model_files(directory) if file.suffix == ".safetensors")
    weights = sum(each.numel() for each in model.parameters())
    if weights > bits:
        raise UserError(
            f"{directory}: config.json makes a model of at least {weights} weights, of which the files hold {bits} "
            "bits: fetch or copy the model again"
        )


@contextmanager
def _loading(directory: Path, problem: str, remedy: str, *, with_weights: bool = True) -> Iterator[Path]:
    """Yield a view of the directory for a library to load from, quietly. What goes wrong is told in one line."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        with (
            viewed(directory, with_weights=with_weights) as view,
            explained(problem, remedy, (str(view), str(directory))),
        ):
            yield view
    finally:
        logging.set_verbosity(verbosity)


def load_model(directory: Path, blocks: int, dtype: str, device: str) -> PreTrainedModel:
    """Load the first `blocks` transformer blocks, without a language-modelling head, ready for inference.

    GPTQ checkpoints load through transformers' own choice of backend.

    Args:
        dtype: `float16`, `bfloat16`, `float32`, or `auto`. `auto` is float32 on the CPU and for float32 checkpoints,
            else bfloat16 where the device has it. It is never float16: residual streams grow beyond its largest number,
            65,504.
        device: a torch device.
    """
    config = _cut(load_config(directory), blocks)
    model, missing = _load(AutoModel, directory, config, dtype, device)
    if any("embed" in key for key in missing) and getattr(config, "tie_word_embeddings", False):
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
    """Load the model with its language-modelling head, ready for inference. Return None when it has no head.

    Args: as in `load_model`, but without `blocks` all blocks are loaded.
    """
    config = load_config(directory)
    if blocks:
        config = _cut(config, blocks)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    model, missing = _load(AutoModelForCausalLM, directory, config, dtype, device)
    return None if missing else model


def _cut(config: Any, blocks: int) -> Any:
    """Return the configuration of the first `blocks` blocks alone."""
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    return config


def _load(kind: Any, directory: Path, config: Any, dtype: str, device: str) -> tuple[Any, list[str]]:
    """Return the model, and the names of weights that its files lack."""
    wanted = _compute_dtype(config, device) if dtype == "auto" else DTYPES[dtype]
    quiet_gptqmodel()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options: dict[str, Any] = {
        "config": config,
        _DTYPE_ARGUMENT: wanted,
        "device_map": {"": device},
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # they are said here
        "output_loading_info": True,
    } | _OWN_CODE_AND_FILES
    problem, remedy = f"{directory}: the weights do not load", "fetch or copy the model again"
    with _loading(directory, problem, remedy) as view:
        model, report = kind.from_pretrained(view, **options)
    for key, found, expected in sorted(report["mismatched_keys"]):
        raise UserError(f"{problem} ({key} is {tuple(found)}, and config.json makes it {tuple(expected)}): {remedy}")
    model.eval().requires_grad_(False)
    missing = sorted(report["missing_keys"])
    if not missing:
        with explained(f"{directory}: the model does not run", remedy), torch.no_grad():
            ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return model, missing


def _compute_dtype(config: Any, device: str) -> torch.dtype:
    own = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    half = own in (torch.float16, torch.bfloat16) and device != "cpu"
    has_bfloat16 = not device.startswith("cuda") or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if half and has_bfloat16 else torch.float32


def quiet_gptqmodel() -> None:
    """Keep GPTQModel from logging its progress and settings, if it is installed."""
    try:
        from logbar import LogBar
    except ImportError:
        return
    LogBar.shared().setLevel("ERROR")


def pick_device(device: str) -> str:
    """Return `device`, or for `auto` the first of cuda, mps and cpu that exists. Raise UserError when it does not."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in available.items() if there)
    kind, _, number = device.partition(":")
    if not available[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise UserError(f"device = {device!r} is not available here: set it to auto or cpu")
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
                f"{file} is damaged ({first_line(error)}): delete it and fetch or copy the model again"
            ) from None
