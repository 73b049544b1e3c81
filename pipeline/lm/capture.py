"""Forward hooks that keep the wanted rows of the activations at the points, one forward pass at a time."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.lm.blocks import block_at, find_blocks, find_sublayers, input_of, missing_site, tensor_of


class Capture:
    """Hooks on a model, as a context manager. `forward` runs the model and returns the activations at the points.

    `layer_delta` is the block's own output minus its input. So it is right for the last block too, where
    `output_hidden_states` would give the state after the final norm. Rows are copied at once, since some models later
    change the tensor in place.
    """

    def __init__(self, model: nn.Module, points: Sequence[Point]) -> None:
        """Find the modules of the points.

        Raises: UserError when the model has no such layer, or when a site is not found; it then lists the modules.
        """
        self.model = model
        self.device: torch.device = model.device  # type: ignore[assignment]
        self.dtype: torch.dtype = model.dtype  # type: ignore[assignment]
        layers: int = model.config.num_hidden_layers  # type: ignore[assignment, union-attr]
        self._blocks = find_blocks(model, layers)
        self._sublayers: dict[int, dict[str, nn.Module]] = {}
        self._modules = {point: self._module_at(point) for point in points}
        self._hooks = ExitStack()
        self._rows = torch.empty(0, dtype=torch.long)
        self._found: dict[Point, Tensor] = {}
        self._before: dict[Point, Tensor] = {}

    def _module_at(self, point: Point) -> nn.Module:
        if not isinstance(point, Point):
            raise UserError(f"{point!r} is not a Point: Point.parse makes one of text such as 'resid_post.2'")
        block = block_at(self._blocks, point.layer)
        if point.site in ("resid_post", "layer_delta"):
            return block
        if point.layer not in self._sublayers:
            self._sublayers[point.layer] = find_sublayers(self.model, block)
        found = self._sublayers[point.layer]
        if point.site not in found:
            raise missing_site(point.site, block)
        return found[point.site]

    def __enter__(self) -> Self:
        for point, module in self._modules.items():
            self._hooks.callback(module.register_forward_hook(self._after(point)).remove)
            if point.site == "layer_delta":
                handle = module.register_forward_pre_hook(self._keep_input(point), with_kwargs=True)
                self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def forward(self, rows: Tensor, **inputs: Any) -> tuple[dict[Point, Tensor], Any]:
        """Run the model on `inputs`.

        Args:
            rows: int64 (R), which of the (batch x sequence) tokens to keep, numbered through the batch.

        Returns: activations (R, width) by point, on the model's device, layer_delta in float32 and the others in the
            model's dtype; and the model's own output.
        """
        self._rows, self._found, self._before = rows, {}, {}
        output = self.model(**inputs)
        found, self._found, self._before = self._found, {}, {}
        return found, output

    def _take(self, state: Tensor) -> Tensor:
        return state.reshape(-1, state.shape[-1])[self._rows]

    def _keep_input(self, point: Point) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._before[point] = self._take(input_of(args, kwargs)).float()

        return hook

    def _after(self, point: Point) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            rows = self._take(tensor_of(output))
            self._found[point] = rows.float() - self._before.pop(point) if point in self._before else rows

        return hook
