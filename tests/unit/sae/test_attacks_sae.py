"""SAE folders, tensors and configs that are not what they should be, each answered with one clear line."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_saes import ACTS, ARCHITECTURES, INF, LATENTS, NAN, K, Tensors, one_line, sae_of, tensors_of
from torch import Tensor

from pipeline.sae.check import TENSORS
from pipeline.sae.metrics import measure
from pipeline.sae.model import CONFIG, WEIGHTS, Sae


def with_value(name: str, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[1] = value

    return change


def without(name: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(name)


def with_tensor(name: str, make: Callable[[Tensor], Any]) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: make(tensors[name])})


# id: architecture, what is done to its tensors, what is said
BAD_TENSORS: dict[str, tuple[str, Callable[[Tensors], Any], str]] = {
    **{
        f"{name} of {architecture} holds {value}": (architecture, with_value(name, value), f"{name} holds ")
        for architecture in ARCHITECTURES
        for name in sorted(TENSORS[architecture])
        for value in (NAN, INF, -INF)
        if name != "threshold" or value is NAN
    },
    **{
        f"{name} of {architecture} is longer": (
            architecture,
            with_tensor(name, lambda tensor: torch.cat([tensor, tensor])),
            "has shape",
        )
        for architecture in ARCHITECTURES
        for name in sorted(TENSORS[architecture])
    },
    **{
        f"{name} of {architecture} is missing": (
            architecture,
            without(name),
            f"tensors missing or not known for {architecture}: {name!r}",
        )
        for architecture in ARCHITECTURES
        for name in sorted(TENSORS[architecture])
    },
    **{
        f"W_dec is {dtype}": (
            "topk",
            with_tensor("W_dec", partial(torch.Tensor.to, dtype=dtype)),
            f"W_dec is of {dtype}",
        )
        for dtype in (torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint8)
    },
    "beyond float32": ("topk", with_tensor("b_dec", lambda tensor: tensor.double() + 1e300), "infinite in float32"),
    "one more": ("standard", lambda tensors: tensors.update(threshold=torch.ones(LATENTS)), "not known for standard"),
    "names that a terminal obeys": (
        "standard",
        lambda tensors: tensors.update({f"\x1b[2J{n}" * 50: torch.ones(1) for n in range(9)}),
        "not known for standard: '\\x1b[2J",
    ),
    "W_enc transposed": ("standard", with_tensor("W_enc", lambda tensor: tensor.T), "W_enc"),
    "W_dec transposed": ("standard", with_tensor("W_dec", lambda tensor: tensor.T), "W_dec has shape (6, 10)"),
    "all transposed": (
        "standard",
        lambda tensors: tensors.update(W_enc=tensors["W_enc"].T, W_dec=tensors["W_dec"].T),
        "W_enc",
    ),
    "W_enc of one axis": ("standard", with_tensor("W_enc", torch.flatten), "W_enc has shape (60,)"),
    "b_enc of two axes": ("standard", with_tensor("b_enc", lambda tensor: tensor[None]), "b_enc has shape (1, 10)"),
    "no latents": ("standard", lambda tensors: tensors.update(tensors_of("standard", latents=0)), "both at least 1"),
    "no width": ("standard", lambda tensors: tensors.update(tensors_of("standard", width=0)), "both at least 1"),
}


@pytest.mark.parametrize(("architecture", "damage", "expected"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_that_make_no_sae_are_told(
    architecture: str, damage: Callable[[Tensors], Any], expected: str, tmp_path: Path
) -> None:
    sae_of(architecture).save(tmp_path)
    tensors = tensors_of(architecture)
    damage(tensors)
    assert expected in one_line(Sae, architecture, tensors, K if architecture == "topk" else None)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, tmp_path / WEIGHTS)
    line = one_line(Sae.load, tmp_path)
    assert line.startswith(f"{tmp_path}: ") and (expected in line or "but W_enc has shape" in line)


BAD_K: list[Any] = [None, 0, -1, LATENTS + 1, 2.0, True, "3", NAN, [3]]


@pytest.mark.parametrize("k", BAD_K, ids=repr)
def test_a_topk_sae_needs_a_k_that_it_can_keep(k: Any, tmp_path: Path) -> None:
    expected = f"k of a topk SAE is {k!r}, where a whole number from 1 to its 10 latents is expected"
    assert one_line(Sae, "topk", tensors_of("topk"), k) == expected
    sae_of("topk").save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text()) | {"k": k}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert one_line(Sae.load, tmp_path) == f"{tmp_path}: {expected}"


def test_other_saes_have_no_k() -> None:
    assert "has none: leave it out" in one_line(Sae, "standard", tensors_of("standard"), 3)


# what is written over or into cfg.json, what is said
BAD_CONFIGS: dict[str, tuple[Any, str]] = {
    "a list": ([1], "holds a list"),
    "a number": (3, "holds a int"),
    "null": (None, "holds a NoneType"),
    "not JSON": (b"{", "is not JSON"),
    "empty": (b"", "is not JSON"),
    "not UTF-8": (b'{"architecture": "caf\xe9"}', "is not JSON"),
    "nested deeply": (b"[" * 100_000, "is not JSON"),
    "a number of 5000 digits": (b'{"d_in": ' + b"9" * 5000 + b"}", "is not JSON"),
    "no architecture": ({"architecture": None}, "architecture None is not known: use one of standard"),
    "an unknown architecture": ({"architecture": "transcoder"}, "architecture 'transcoder' is not known"),
    "an architecture that is a list": ({"architecture": ["standard"]}, "is not known"),
    "an architecture that a terminal obeys": ({"architecture": "\x1b[2J" * 1000}, "architecture '\\x1b[2J"),
    "sizes that fill the screen": ({"d_in": "6\n" * 10_000}, "d_in of cfg.json is '6\\n6"),
    "another architecture": ({"architecture": "gated"}, "tensors missing or not known for gated"),
    "d_in of another": ({"d_in": 7}, "d_in of cfg.json is 7, but W_enc has shape (6, 10)"),
    "d_sae of another": ({"d_sae": 6}, "d_sae of cfg.json is 6"),
    "d_in is text": ({"d_in": "6"}, "d_in of cfg.json is '6'"),
    "d_in is a float": ({"d_in": 6.0}, "d_in of cfg.json is 6.0"),
    "d_in is NaN": ({"d_in": NAN}, "d_in of cfg.json is nan"),
    "d_in is null": ({"d_in": None}, "d_in of cfg.json is None"),
    "sizes transposed": ({"d_in": 10, "d_sae": 6}, "d_in of cfg.json is 10"),
    "inputs normalised": ({"normalize_activations": "layer_norm"}, "normalize_activations of cfg.json must be none"),
    "inputs normalised, somehow": ({"normalize_activations": True}, "normalize_activations of cfg.json must be none"),
    "b_dec applied 'false'": ({"apply_b_dec_to_input": "false"}, "where true or false is expected"),
    "b_dec applied null": ({"apply_b_dec_to_input": None}, "where true or false is expected"),
    "rescaled 1": ({"rescale_acts_by_decoder_norm": 1}, "where true or false is expected"),
    "topk before SAELens 6": ({"activation_fn_str": "topk"}, "activation_fn of cfg.json is 'topk'"),
    "tanh": ({"activation_fn": "tanh-relu"}, "activation_fn of cfg.json is 'tanh-relu'"),
}


@pytest.mark.parametrize(("content", "expected"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_cfg_json_that_fits_no_sae_is_told(content: Any, expected: str, tmp_path: Path) -> None:
    sae_of("standard").save(tmp_path)
    if isinstance(content, dict):
        content = json.loads((tmp_path / CONFIG).read_text()) | content
    (tmp_path / CONFIG).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    line = one_line(Sae.load, tmp_path)
    assert line.startswith(str(tmp_path)) and expected in line


def header(**tensors: Any) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


class Command:
    """An object whose unpickling runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


# what stands in a file's place, or None for nothing
BAD_FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no cfg.json": (CONFIG, lambda path: None, "is missing"),
    "no weights": (WEIGHTS, lambda path: None, "is missing"),
    "cfg.json is a pipe": (CONFIG, os.mkfifo, "is not a regular file"),
    "weights are a pipe": (WEIGHTS, os.mkfifo, "not a regular file"),
    "cfg.json is a folder": (CONFIG, Path.mkdir, "is not a regular file"),
    "weights are a folder": (WEIGHTS, Path.mkdir, "not a regular file"),
    "weights are a device": (WEIGHTS, lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "cfg.json is a device": (CONFIG, lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "weights lead nowhere": (WEIGHTS, lambda path: path.symlink_to("nothing"), "is missing"),
    "weights are empty": (WEIGHTS, Path.touch, "is damaged"),
    "weights are a pickle": (WEIGHTS, lambda path: path.write_bytes(pickle.dumps(Command())), "is damaged"),
    "weights are torch's": (WEIGHTS, lambda path: torch.save(tensors_of("standard"), path), "is damaged"),
    "a header of 10^18 bytes": (WEIGHTS, lambda path: path.write_bytes(struct.pack("<Q", 10**18)), "is damaged"),
    "a header that is no JSON": (WEIGHTS, lambda path: path.write_bytes(struct.pack("<Q", 3) + b"{{{"), "is damaged"),
    "a header that is no text": (
        WEIGHTS,
        lambda path: path.write_bytes(struct.pack("<Q", 3) + b"\xff" * 3),
        "is damaged",
    ),
    "a tensor of 10^12 numbers": (
        WEIGHTS,
        lambda path: path.write_bytes(
            header(W_enc={"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]})
        ),
        "is damaged",
    ),
    "a shape beyond 64 bits": (
        WEIGHTS,
        lambda path: path.write_bytes(header(W_enc={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]})),
        "is damaged",
    ),
    "a shape below 0": (
        WEIGHTS,
        lambda path: path.write_bytes(header(W_enc={"dtype": "F32", "shape": [-1, 1], "data_offsets": [0, 4]})),
        "is damaged",
    ),
    "tensors that overlap": (
        WEIGHTS,
        lambda path: path.write_bytes(
            header(
                W_enc={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                W_dec={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            )
            + bytes(4)
        ),
        "is damaged",
    ),
    "an unknown type": (
        WEIGHTS,
        lambda path: path.write_bytes(header(W_enc={"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}) + bytes(4)),
        "is damaged",
    ),
}


@pytest.mark.parametrize(("name", "make", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_stands_in_a_files_place_is_not_waited_for_run_or_believed(
    name: str, make: Callable[[Path], Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sae"
    sae_of("standard").save(folder)
    (folder / name).unlink()
    make(folder / name)
    line = one_line(Sae.load, folder)
    assert line.startswith(str(folder / name)) and expected in line
    assert line.endswith(
        ": give a folder with cfg.json and sae_weights.safetensors, as Sae.save and SAELens write them"
    )
    assert os.listdir(tmp_path) == ["sae"]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_truncated_weights_are_told(share: float, tmp_path: Path) -> None:
    sae_of("gated").save(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[: int(share * len(content))])
    assert f"{tmp_path / WEIGHTS} is damaged (" in one_line(Sae.load, tmp_path)


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "sae", tmp_path / "\N{SNOWMAN}" / "sae", str(tmp_path / "text"), tmp_path / "file"):
        assert "cfg.json is missing: give a folder with cfg.json and" in one_line(Sae.load, folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_float_types_are_taken_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    given = {name: tensor.to(dtype) for name, tensor in tensors_of("jumprelu").items()}
    sae_of("jumprelu").save(tmp_path)
    save_file(given, tmp_path / WEIGHTS)
    for sae in (Sae.load(tmp_path), Sae("jumprelu", given)):
        assert all(torch.equal(sae.tensors[name], tensor.float()) for name, tensor in given.items())
        assert sae.encode(ACTS).dtype == torch.float32


def test_an_infinite_threshold_is_of_a_latent_that_never_fires() -> None:
    tensors = tensors_of("jumprelu")
    tensors["threshold"][2] = INF
    latents = Sae("jumprelu", tensors).encode(ACTS)
    assert latents.isfinite().all() and not latents[:, 2].any() and latents.any()


def test_an_sae_that_is_finite_but_overflows_is_no_null_metric() -> None:
    tensors = tensors_of("standard")
    tensors["W_enc"] *= 1e38
    assert "makes of the activations is not finite" in one_line(measure, Sae("standard", tensors), ACTS)


def test_activations_that_are_all_the_same_leave_the_fvu_undefined() -> None:
    metrics = measure(sae_of("topk"), ACTS[:1].expand(20, -1)).metrics
    assert np.isnan(metrics["fvu"]) and metrics["l0"] == metrics["l0_quantiles"]["0.5"]
