"""The packages as a library: their examples run as written, their names cost nothing, wrong calls get one line."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sample_rows
from small_models import IDS, PROMPTS, TOKENIZER, small_model, tokens_of
from small_saes import one_line
from transformers import Qwen3Config, Qwen3Model

import pipeline.activations
import pipeline.sae
from pipeline.activations import ActivationStore, Point, extract, tokenise
from pipeline.core.errors import UserError
from pipeline.core.points import SITES
from pipeline.sae import Sae
from tools.stage_code import ROOT

PACKAGES = [pipeline.activations, pipeline.sae]
INDEX, MANIFEST = "tokens.parquet", "resid_post.1/manifest.json"
MODEL = small_model("qwen3")
MANY = [str(row["prompt"]) for row in sample_rows(150)]
MANY_IDS = [f"id{number}" for number in range(len(MANY))]


def deep_model() -> Any:
    """A small model with the layer that the example names."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    config = Qwen3Config(vocab_size=len(TOKENIZER), num_hidden_layers=19, head_dim=32, pad_token_id=0, **sizes)
    return Qwen3Model(config).eval()


def run_examples(model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the examples of the packages one after the other, as written, and return what they leave."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"model": model, "tokenizer": TOKENIZER, "prompt_ids": MANY_IDS, "prompts": MANY}
    for package in PACKAGES:
        exec(str(package.__doc__).split("\n\n", 1)[1], names)
    return names


def test_the_examples_chained_train_an_sae_that_explains_its_activations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run_examples(deep_model(), tmp_path, monkeypatch)
    assert names["metrics"]["l0"] == pytest.approx(32, rel=0.02) and 0 < names["metrics"]["fvu"] < 1
    assert names["latents_NL"].shape == (len(names["acts_ND"]), 1024)
    assert Sae.load(tmp_path / "sae").width == 64


def test_tokens_with_giant_norms_do_not_spoil_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = deep_model()
    counts = np.bincount(np.concatenate([TOKENIZER(prompt)["input_ids"] for prompt in MANY]))
    rare = int(np.flatnonzero((counts >= 4) & (counts <= 16))[0])
    with torch.no_grad():
        model.get_input_embeddings().weight[rare] *= 1000
    names = run_examples(model, tmp_path, monkeypatch)
    norms = names["acts_ND"].float().norm(dim=1)
    assert norms.max() < 10 * norms.median()
    assert names["metrics"]["l0"] == pytest.approx(32, rel=0.02) and 0 < names["metrics"]["fvu"] < 1


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_of_a_package_is_there_and_listed(package: Any) -> None:
    for name, home in package._HOMES.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
    assert sorted(package._HOMES) == package.__all__ and set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(
    "code",
    [
        # importing a package costs nothing, until a name is used
        "import pipeline.activations, pipeline.sae; assert not {'torch', 'numpy'} & sys.modules.keys()",
        "import pipeline.sae.model; assert 'pipeline.sae.train' not in sys.modules",
        # no module takes a name's place, whatever was imported before
        "import pipeline.activations.extraction, pipeline.sae.train, pipeline.sae.metrics;"
        "from pipeline.activations import *; from pipeline.sae import *;"
        "assert all(map(callable, (extract, tokenise, ActivationStore, Point, Sae, measure, train_sae)))",
    ],
)
def test_importing_a_package(code: str) -> None:
    subprocess.run([sys.executable, "-c", f"import sys; {code}"], cwd=ROOT, check=True)


def test_the_pipelines_own_files_import_from_the_files_that_hold_a_name() -> None:
    """DVC would not see what is behind a package's names: see stage_code.imported_files."""
    packages = {package.__name__: set(package.__all__) for package in PACKAGES}
    for file in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in packages:
                assert not packages[node.module] & {alias.name for alias in node.names}, file


def extract_at(points: list[Any], folder: Path) -> None:
    extract(MODEL, tokens_of(PROMPTS[:3]), points, folder / "acts", batch_tokens=512)


def store_with(name: str, make: Callable[[Path], Any], folder: Path) -> None:
    """Read activations of which one file was replaced."""
    extract_at([Point.parse("resid_post.1")], folder)
    file = folder / "acts" / name
    file.unlink()
    make(file)
    ActivationStore(folder / "acts", "resid_post.1")


def tokenise_with(ids: Any, prompts: Any, **options: Any) -> None:
    tokenise(TOKENIZER, ids, prompts, **{"max_tokens": 50} | options)


# id: a call that cannot be right, given an empty folder; what is said
BAD_CALLS: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{
        f"{site} of layer 40": (
            partial(extract_at, [Point(site, 40)]),
            "layer 40 is not there: the model has 3 layers, so it is 0..2",
        )
        for site in SITES
    },
    "layer 3 of 3": (lambda folder: extract_at([Point.parse("resid_post.3")], folder), "so it is 0..2"),
    "a point as text": (
        lambda folder: extract_at(["resid_post.1"], folder),
        "'resid_post.1' is not a Point: Point.parse makes one",
    ),
    "no activations": (lambda folder: ActivationStore(folder / "acts", "resid_post.1"), "manifest.json is missing"),
    "a manifest that is no JSON": (
        partial(store_with, MANIFEST, lambda file: file.write_text("{")),
        "manifest.json is not JSON (",
    ),
    "a manifest that is a pipe": (partial(store_with, MANIFEST, os.mkfifo), "manifest.json is not a regular file"),
    "an index that is a pipe": (partial(store_with, INDEX, os.mkfifo), "tokens.parquet is not a regular file"),
    "an index that is a folder": (partial(store_with, INDEX, Path.mkdir), "tokens.parquet is not a regular file"),
    "an index that is no parquet": (
        partial(store_with, INDEX, lambda file: file.write_text("{")),
        "tokens.parquet is damaged (",
    ),
    "no SAE": (lambda folder: Sae.load(folder), "cfg.json is missing: give a folder with cfg.json and"),
    "fewer ids": (lambda _: tokenise_with(IDS[:2], PROMPTS[:3]), "there are 2 prompt ids for 3 prompts"),
    "more ids": (lambda _: tokenise_with(IDS[:3], PROMPTS[:2]), "there are 3 prompt ids for 2 prompts"),
    "equal ids, adjacent": (lambda _: tokenise_with(["a", "a"], PROMPTS[:2]), "prompt id 'a' stands for two prompts"),
    "equal ids, apart": (lambda _: tokenise_with(["a", "b", "a"], PROMPTS[:3]), "prompt id 'a' stands for two"),
    "ids that are numbers": (lambda _: tokenise_with([1, 2], PROMPTS[:2]), "the id of prompt 0 is 1: text of valid"),
    "a missing id": (lambda _: tokenise_with(["a", None], PROMPTS[:2]), "the id of prompt 1 is None"),
    "a missing prompt": (lambda _: tokenise_with(["a", "b"], ["hello", None]), "the text of prompt 1 is None"),
    "a prompt that is NaN": (lambda _: tokenise_with(["a"], [float("nan")]), "the text of prompt 0 is nan"),
    "a prompt of bytes": (lambda _: tokenise_with(["a"], [b"hello"]), "the text of prompt 0 is b'hello'"),
    "half a surrogate pair": (lambda _: tokenise_with(["a"], ["x\ud83e"]), "the text of prompt 0 is 'x\\ud83e'"),
    "half a pair in an id": (lambda _: tokenise_with(["\ud83e"], ["x"]), "the id of prompt 0 is '\\ud83e'"),
    "one prompt, no list": (lambda _: tokenise_with(list("hello"), "hello"), "put a single one into a list"),
    "max_tokens 0": (lambda _: tokenise_with(["a"], ["x"], max_tokens=0), "max_tokens = 0 is not allowed"),
    "max_tokens below 0": (lambda _: tokenise_with(["a"], ["x"], max_tokens=-3), "max_tokens = -3 is not allowed"),
    "max_tokens None": (lambda _: tokenise_with(["a"], ["x"], max_tokens=None), "max_tokens = None is not allowed"),
    "an unknown format": (
        lambda _: tokenise_with(["a"], ["x"], prompt_format="Raw"),
        "prompt_format = 'Raw' is not allowed: one of raw, chat, chat_thinking is",
    ),
    "an unknown keep": (lambda _: tokenise_with(["a"], ["x"], keep="Prompt"), "keep = 'Prompt' is not allowed"),
}


@pytest.mark.parametrize(("call", "expected"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_call_that_cannot_be_right_gets_one_line(call: Callable[[Path], Any], expected: str, tmp_path: Path) -> None:
    assert expected in one_line(call, tmp_path)


def test_a_call_that_fails_leaves_earlier_activations_alone(tmp_path: Path) -> None:
    extract_at([Point.parse("resid_post.1")], tmp_path)
    before = ActivationStore(tmp_path / "acts", "resid_post.1").read()
    with pytest.raises(UserError):
        extract_at([Point.parse("resid_post.1"), Point.parse("resid_post.9")], tmp_path)
    assert torch.equal(before, ActivationStore(tmp_path / "acts", "resid_post.1").read())


NO_POINTS: list[Any] = [
    "",
    "resid_post",
    "resid_post.",
    "resid_post.-1",
    "resid_post.01",
    "resid_pre.1",
    "resid_post.1.2",
    None,
]
NO_POINTS += ["resid_post.1\n", "resid_post.\N{ARABIC-INDIC DIGIT ONE}", "resid_post." + "9" * 5000, 3]


@pytest.mark.parametrize("text", NO_POINTS)
def test_text_that_is_no_point_is_told(text: Any) -> None:
    with pytest.raises(
        ValueError, match=r"is no point: a point is SITE\.LAYER with SITE one of resid_post, .* and LAYER from 0$"
    ):
        Point.parse(text)


@pytest.mark.parametrize(("site", "layer"), [("resid_post", -1), ("resid_pre", 1), ("resid_post", 1.0), (None, 1)])
def test_a_point_that_cannot_be_is_told(site: Any, layer: Any) -> None:
    with pytest.raises(ValueError, match=r"^a point is SITE\.LAYER with SITE one of"):
        Point(site, layer)
