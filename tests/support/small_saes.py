"""Small SAEs of every architecture with random weights, and activations for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.sae.check import TENSORS
from pipeline.sae.model import Sae

WIDTH, LATENTS, K = 6, 10, 3
ARCHITECTURES = sorted(TENSORS)
Tensors = dict[str, Tensor]
NAN, INF = float("nan"), float("inf")
ACTS = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(2))


def one_line(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """What a call says that must fail."""
    with pytest.raises(UserError) as told:
        call(*args, **options)
    line = str(told.value)
    assert line.isprintable() and "dvc" not in line and len(line) < 700
    return line


def tensors_of(architecture: str, width: int = WIDTH, latents: int = LATENTS) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    shapes = {"W_enc": (width, latents), "W_dec": (latents, width), "b_dec": (width,)}
    return {
        name: 0.5 * torch.randn(shapes.get(name, (latents,)), generator=generator).abs_()
        if name == "threshold"
        else 0.5 * torch.randn(shapes.get(name, (latents,)), generator=generator)
        for name in sorted(TENSORS[architecture])
    }


def sae_of(architecture: str) -> Sae:
    return Sae(architecture, tensors_of(architecture), K if architecture == "topk" else None)
