"""Ways to change a model's directory that attacks are made of, and a good model to make them on."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers import (
    SMALL,
    run_stage,
    run_stage_error,
    sample_rows,
    save_small_model,
    working_in,
    write_csv,
    write_params,
)
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def make_good(folder: Path) -> None:
    """Prompts and a small local model, up to and including fetch_model."""
    write_csv(folder / "prompts.csv", sample_rows(500)[::6])
    save_small_model(folder / "lm")
    write_params(folder, SMALL)
    for stage in ("download", "filter", "fetch_model"):
        run_stage(stage, folder)


def fetch_error(folder: Path) -> str:
    """The line of a fetch_model that must fail and leave the earlier lock and model as they were."""
    (folder / "models/tiny/earlier").touch()
    before = (folder / "models/model.lock.json").read_bytes()
    line = run_stage_error("fetch_model", folder)
    assert len(line) < 700 and "/tmp" not in line.replace(str(folder), "")
    assert (folder / "models/model.lock.json").read_bytes() == before
    assert [path.name for path in (folder / "models/tiny").iterdir()] == ["earlier"]
    assert not list((folder / "models").glob(".*"))
    return line


def keys(file: str, **changes: Any) -> Change:
    """Set keys of a JSON file of the model's directory, or make one of them alone."""

    def change(folder: Path) -> None:
        path = folder / file
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | changes))

    return change


def config(**changes: Any) -> Change:
    return keys("config.json", **changes)


def without_layer_types(**changes: Any) -> Change:
    return config(layer_types=None, **changes)


def text(file: str, content: str | bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def several(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def subfolder(name: str) -> Change:
    return lambda folder: os.mkdir(folder / name)


def sparse(file: str, size: int) -> Change:
    return lambda folder: os.truncate(folder / file, size)


def instead(file: str, make: Callable[[Path], object]) -> Change:
    """Something of another kind with the name of a file."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return change


def socket_at(path: Path) -> None:
    with working_in(path.parent):  # a socket's path may only be short
        socket.socket(socket.AF_UNIX).bind(path.name)


def sharded(place: Any) -> Change:
    """The weights' index says that a tensor lies in `place`, where there is a file with it (or another value)."""

    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        save_file(weights, folder / "part.safetensors", metadata={"format": "pt"})
        save_file(weights, folder.parent / "outside.safetensors", metadata={"format": "pt"})
        torch.save(weights, folder / "pytorch_model.bin")
        places = dict.fromkeys(weights, "part.safetensors") | {"model.norm.weight": place}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    return change


def tokenizer(**changes: Any) -> Change:
    """Set keys of tokenizer.json; `model` is merged into what is there."""

    def change(folder: Path) -> None:
        before = json.loads((folder / "tokenizer.json").read_text())
        merged = {"model": before["model"] | changes["model"]} if "model" in changes else {}
        (folder / "tokenizer.json").write_text(json.dumps(before | changes | merged))

    return change


def template(source: str) -> Change:
    return text("chat_template.jinja", source)
