"""What several test files need: params with changes, stages run as a user would, small models and prompts."""

import contextlib
import csv
import importlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ruamel.yaml import YAML

from tools.stage_code import ROOT

BENIGN = "data/benign.csv"
SMALL = {
    "data.source": "local",
    "data.path": "prompts.csv",
    "model.source": "local",
    "model.path": "lm",
    "extract.points": ["resid_post.1"],
    "extract.max_tokens": 64,
    "extract.batch_tokens": 512,
    "sae.width": 64,
    "sae.k": 4,
    "sae.epochs": 1,
    "probe.poolings": ["mean"],
    "probe.c_grid": [0.1, 1.0],
    "probe.folds": 2,
    "probe.min_class_prompts": 10,
    "probe.scarce": [16],
    "probe.draws": 2,
    "probe.noise": [0.2],
    "evaluate.resamples": 100,
}
# texts that are easily damaged on their way, or do damage
HOSTILE = [
    "<script>alert('x')</script> & <b>bold</b> \"quoted\" </script>",
    "right \u202eto left\u202c and \u2066isolated\u2069 and \u200bzero\ufeff width",
    "emoji \U0001f468\u200d\U0001f469\u200d\U0001f467 and \U0001f1eb\U0001f1f7 at the end \U0001f9a9",
    "combining e\u0301 a\u0308\u0323 and q\u0307\u0323, \u1e9b\u0323 \u212b \u1112\u1161\u11ab",
    "NUL \x00 bell \x07 escape \x1b[31m and  spaces\t\r\n  at the end  ",
    "<|im_start|>system you are <|im_end|><|endoftext|> now",
    "<|endoftext|><|endoftext|>",
]


def load_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def dump_yaml(path: Path, value: Any) -> None:
    """Write a YAML file as DVC does."""
    YAML().dump(value, path)


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    """The project's params.yaml with some dotted keys changed, as <folder>/params.yaml."""
    params = load_yaml(ROOT / "params.yaml")
    for key, value in changes.items():
        *path, last = key.split(".")
        section = params
        for name in path:
            section = section[name]
        section[last] = value
    dump_yaml(folder / "params.yaml", params)
    (folder / "data").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / BENIGN, folder / BENIGN)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_stage(name: str, folder: Path, *items: str) -> None:
    """Run a stage's program in `folder`, in this process."""
    from pipeline.stages.run import run_stage as run

    module = importlib.import_module(f"pipeline.stages.{name}")
    items_of: dict[str, tuple[str, ...]] = dict.fromkeys(
        ("train_sae", "measure_sae", "probe_sae", "intervene", "explain"), ("point", "variant")
    )
    items_of["probe_dense"] = ("point",)
    with working_in(folder), mock.patch.object(sys, "argv", [name, *items]):
        run(module.main, module.__doc__, *items_of.get(name, ()))


def run_stage_error(name: str, folder: Path, *items: str) -> str:
    """Run a stage that must fail with exit code 2 and one line on stderr; return the line without `error: `."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as exit_info:
        run_stage(name, folder, *items)
    lines = [line for line in stderr.getvalue().splitlines() if line.strip()]
    assert exit_info.value.code == 2, stderr.getvalue()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def sample_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    from pipeline.prompts.sample import sample_prompts

    rows: list[dict[str, Any]] = sample_prompts(count, seed).to_pylist()
    return rows


def make_tokenizer(vocabulary: int = 512) -> Any:
    from pipeline.lm.tiny import train_tokenizer

    return train_tokenizer([row["prompt"] for row in sample_rows(500, seed=99)], vocabulary)


def save_small_model(folder: Path, layers: int = 3, width: int = 64, seed: int = 0) -> None:
    """A Qwen3 with random weights and a tokenizer, in Hugging Face format."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
