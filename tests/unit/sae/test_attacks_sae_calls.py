"""Calls of encode, decode, measure and train_sae that cannot be right, each answered with one clear line."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small_saes import ACTS, ARCHITECTURES, INF, LATENTS, NAN, one_line, sae_of
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.sae.data import Activations
from pipeline.sae.metrics import measure
from pipeline.sae.train import train_sae


def as_integers(acts: Tensor) -> Tensor:
    return (10 * acts).long()


# what is given for activations (300, 6), what is said
BAD_ACTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "numpy": (Tensor.numpy, "is of ndarray: give a torch.Tensor"),
    "nothing": (lambda acts: None, "is of NoneType: give a torch.Tensor"),
    "a list": (Tensor.tolist, "is of list"),
    "int8": (lambda acts: acts.char(), "is of torch.int8: give float16, bfloat16, float32 or float64"),
    "int64": (as_integers, "is of torch.int64"),
    "bool": (lambda acts: acts > 0, "is of torch.bool"),
    "complex": (lambda acts: acts.to(torch.complex64), "is of torch.complex64"),
    "another width": (lambda acts: acts[:, 1:], "has shape (300, 5): (..., 6) is expected"),
    "transposed": (lambda acts: acts.T, "has shape (6, 300)"),
    "a number": (lambda acts: acts[0, 0], "has shape ()"),
    "another device": (lambda acts: acts.to("meta"), "is on meta and the SAE on cpu: move one"),
}


@pytest.mark.parametrize(("make", "expected"), BAD_ACTS.values(), ids=BAD_ACTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_cannot_be_encoded_or_decoded_is_told(
    architecture: str, make: Callable[[Tensor], Any], expected: str
) -> None:
    sae = sae_of(architecture)
    assert expected in one_line(sae.encode, make(ACTS))
    assert one_line(sae.decode, make(torch.zeros(300, LATENTS))).startswith("what is to be decoded ")


# what train_sae is given for its activations, and measure, what is said
BAD_TOKENS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    **{name: case for name, case in BAD_ACTS.items() if name not in ("another width", "transposed", "another device")},
    "a number": (lambda acts: acts[0, 0], "has shape ()"),
    "one token": (lambda acts: acts[0], "has shape (6,)"),
    "three axes": (lambda acts: acts.view(3, 100, 6), "has shape (3, 100, 6)"),
    "no width": (lambda acts: acts[:, :0], "has shape (300, 0)"),
    "NaN": (lambda acts: acts.index_fill(0, torch.tensor([77]), NAN), "holds NaN or infinity in row 77"),
    "infinity": (lambda acts: acts.index_fill(0, torch.tensor([299]), -INF), "holds NaN or infinity in row 299"),
    "empty": (lambda acts: acts[:0], "there are no activations"),
}


@pytest.mark.parametrize(("make", "expected"), BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_what_cannot_be_trained_or_measured_on_is_told(make: Callable[[Tensor], Any], expected: str) -> None:
    assert expected in one_line(train_sae, make(ACTS), architecture="topk", width=8, k=2)
    assert expected in one_line(measure, sae_of("topk"), make(ACTS))


BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name} {value!r}": ({name: value}, f"{name} = {value!r} is not allowed: a whole number from ")
        for name in ("width", "k", "batch_size", "epochs")
        for value in (0, -1, 2.0, True, "8", None, NAN, 10**30)
    },
    **{f"seed {value!r}": ({"seed": value}, f"seed = {value!r} is") for value in (-1, 2**32, 1.5, None)},
    **{f"patience {value!r}": ({"patience": value}, f"patience = {value!r} is") for value in (0, -1, 1.5, True)},
    **{
        f"lr {value!r}": ({"lr": value}, f"lr = {value!r} is not allowed: a number above 0 is")
        for value in (0, 0.0, -1e-4, NAN, INF, "1e-4", True)
    },
    **{
        f"aux_coefficient {value!r}": ({"aux_coefficient": value}, f"aux_coefficient = {value!r} is not allowed")
        for value in (-1, NAN, INF, None)
    },
    "k above width": ({"k": 9}, "k = 9 is not allowed: a whole number from 1 to the width, 8, is"),
    **{
        f"architecture {value!r}": (
            {"architecture": value},
            "is not known: use one of relu, gated, jump_relu, topk, batch_topk, matryoshka",
        )
        for value in ("transformer", "pretrained", "TopK", "", None)
    },
    "held-out of another width": ({"held_out": ACTS[:, 1:]}, "held_out has shape (300, 5): (..., 6) is expected"),
    "held-out empty": ({"held_out": ACTS[:0]}, "held_out has no tokens"),
    "held-out NaN": (
        {"held_out": ACTS.index_fill(0, torch.tensor([5]), NAN)},
        "held_out holds NaN or infinity in row 5",
    ),
    "held-out integers": ({"held_out": as_integers(ACTS)}, "held_out is of torch.int64"),
    "held-out of one axis": ({"held_out": ACTS[0]}, "held_out has shape (6,)"),
}


@pytest.mark.parametrize(("settings", "expected"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_cannot_be_are_told(settings: dict[str, Any], expected: str) -> None:
    assert expected in one_line(train_sae, ACTS, **{"architecture": "topk", "width": 8, "k": 2} | settings)


@pytest.mark.parametrize("architecture", ["relu", "gated", "jump_relu", "topk", "batch_topk", "matryoshka"])
def test_the_smallest_saes_train_and_activations_all_the_same_do_not(architecture: str) -> None:
    for width, k, d in ((1, 1, 6), (2, 2, 1), (64, 2, 1)):
        sae = train_sae(ACTS[:, :d], architecture=architecture, width=width, k=k, batch_size=50, epochs=8)
        assert sae.latents == width and np.isfinite(measure(sae, ACTS[:, :d]).metrics["fvu"])
    for same in (torch.zeros(50, 6), torch.full((50, 6), 3.0)):
        assert "are all the same" in one_line(train_sae, same, architecture=architecture, width=8, k=2)


def test_training_that_diverges_in_its_last_step_is_told() -> None:
    line = one_line(train_sae, ACTS, architecture="topk", width=8, k=2, lr=1e38, batch_size=300, epochs=1)
    assert line.startswith("training diverged at step 1 ")


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "mps:7", ""])
def test_a_device_that_is_not_there_is_told(device: str) -> None:
    assert one_line(sae_of("topk").to, device).startswith(f"device {device!r} cannot be used here: ")


@pytest.mark.parametrize("content", [b"", b"notes of mine", save({"x": torch.zeros(1)})])
def test_a_checkpoint_that_is_none_is_not_overwritten(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_bytes(content)
    line = one_line(train_sae, ACTS, architecture="topk", width=8, k=2, checkpoint=file, checkpoint_seconds=0)
    assert line.endswith("is no checkpoint of train_sae: delete it, or name another file")
    assert file.read_bytes() == content


def test_blocks_are_trained_on_as_tensors_are() -> None:
    data = Activations([partial(torch.clone, part) for part in ACTS.split(100)])
    line = one_line(train_sae, data, architecture="topk", width=8, k=2, held_out=ACTS[:, 1:])
    assert line.startswith("held_out has shape (300, 5)")


def test_sparse_tensors_dtypes_and_lists_are_told() -> None:
    acts = torch.randn(40, 8)
    sae = train_sae(acts, architecture="topk", width=16, k=2, epochs=1)
    with pytest.raises(UserError, match="is a sparse tensor: give a dense one"):
        sae.encode(acts.to_sparse())
    with pytest.raises(UserError, match="cannot be used here"):
        sae.to(torch.float32)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"architecture \['topk'\] is not known"):
        train_sae(acts, architecture=["topk"], width=16, k=2)  # type: ignore[arg-type]
