"""Forward hooks that hand out the activations at hook points, one forward pass at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.activations.blocks import find_attention, find_blocks, find_mlp
from pipeline.points import Point


@contextmanager
def capturing(model: nn.Module, points: Sequence[Point]) -> Iterator[dict[Point, Tensor]]:
    """Within the block, every forward pass of `model` leaves its activations in the dict that this yields.

    Each is of shape (batch, sequence, width) in the model's dtype, layer_delta in float32. layer_delta is the
    output of the block itself minus its input, so it holds for the last block too, where `output_hidden_states`
    would give the state after the final norm.
    """
    layers: int = model.config.num_hidden_layers  # type: ignore[assignment, union-attr]
    blocks = find_blocks(model, layers)
    captured: dict[Point, Tensor] = {}
    with ExitStack() as hooks:
        for point in points:
            handle = _module_at(blocks[point.layer], point).register_forward_hook(
                _hook(captured, point), with_kwargs=True
            )
            hooks.callback(handle.remove)
        yield captured


def _module_at(block: nn.Module, point: Point) -> nn.Module:
    if point.site == "attn_out":
        return find_attention(block)
    if point.site == "mlp_out":
        return find_mlp(block)
    return block


def _hook(captured: dict[Point, Tensor], point: Point) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        state = _tensor(output)
        if point.site == "layer_delta":
            state = state.float() - (args[0] if args else kwargs["hidden_states"]).float()
        captured[point] = state

    return hook


def _tensor(output: Any) -> Tensor:
    return output if torch.is_tensor(output) else output[0]
