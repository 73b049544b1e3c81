"""Find a transformer's blocks, and what attention and MLP add in them, by structure and not by model name."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.core.errors import UserError

_SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}
_SAME_VALUES = {Tensor.view, Tensor.reshape, torch.reshape, Tensor.to, Tensor.float, Tensor.type_as}
_PROBE_TOKENS = 6


def find_blocks(model: nn.Module, layers: int) -> nn.ModuleList:
    """Return the list of the model's `layers` blocks: the outermost ModuleList of that length.

    Raises: UserError that lists the model's module lists when there is none.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    fitting = [name for name, module in lists.items() if len(module) == layers]
    if not fitting:
        raise UserError(
            f"{type(model).__name__} has no list of {layers} transformer blocks: its module lists are "
            f"{', '.join(f'{name} ({len(module)})' for name, module in lists.items()) or 'none'}"
        )
    return lists[min(fitting, key=lambda name: name.count("."))]


def block_at(blocks: nn.ModuleList, layer: int) -> nn.Module:
    """Return the block of that number. Raise UserError when the model has none."""
    if not 0 <= layer < len(blocks):
        raise UserError(
            f"layer {layer} is not there: the model has {len(blocks)} layers, so it is 0..{len(blocks) - 1}"
        )
    return blocks[layer]


def find_sublayers(model: nn.Module, block: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of `block` whose outputs are what attention and MLP add to the residual stream.

    Two forward passes over a few tokens follow the sums from the block's input to its output. Each term that is added
    on the way must be the output of one of the modules. The first term that changes when another token's input state
    changes is attention's, the only sublayer that moves information between tokens; the other term is the MLP's. So it
    does not matter how modules are called, whether the two run in sequence or in parallel, where the norms stand, or
    whether the sum is made inside a submodule (BERT, Bloom).

    Returns: `attn_out` and `mlp_out`, each only if it was found.
    """
    trace, changed = _follow(model, block, change=False), _follow(model, block, change=True)
    terms = trace.added()
    attention = next((name for name in terms if _differs(trace.last[name], changed.last[name])), None)
    others = [name for name in terms if name != attention]
    found: dict[str, nn.Module] = {}
    if attention is not None:
        found["attn_out"] = block.get_submodule(attention)
        if len(others) == 1:
            found["mlp_out"] = block.get_submodule(others[0])
    return found


def missing_site(site: str, block: nn.Module) -> UserError:
    """Return the error that says that a block has no such site, and lists the block's modules."""
    modules = ", ".join(name for name, _ in block.named_modules() if name)
    return UserError(
        f"site {site} is not found in {type(block).__name__}: what it adds to the residual stream is not the output "
        f"of one of its modules, which are {modules}: use resid_post or layer_delta with this model"
    )


def tensor_of(output: Any) -> Tensor:
    """Return the hidden states in a module's output: the output itself, or the first of a tuple."""
    return output if torch.is_tensor(output) else output[0]


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states that a block is called with."""
    return args[0] if args else kwargs["hidden_states"]


class _Trace(TorchFunctionMode):
    """Follows sums: for each tensor, of which module outputs, besides the block's input, it is the sum."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.alive = [state]  # so that no id is used twice
        self.terms: dict[int, tuple[int, ...]] = {id(state): (0,)}  # 0 is the residual stream
        self.producer: dict[int, str] = {}
        self.last: dict[str, Tensor] = {}  # the last token's row of each module's output
        self.output = state

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [arg for arg in args if torch.is_tensor(arg)]
        before = [self._terms_of(tensor) for tensor in tensors]  # a sum may be made in place
        result = function(*args, **(kwargs or {}))
        if torch.is_tensor(result):
            self.alive.append(result)
            if function in _SUMS and len(tensors) == 2 and not kwargs:
                stream, added = sorted(before, key=lambda terms: 0 not in terms)
                self.terms[id(result)] = stream + added
            elif function in _SAME_VALUES and tensors and (id(tensors[0]) in self.terms):
                self.terms[id(result)] = before[0]
        return result

    def _terms_of(self, tensor: Tensor) -> tuple[int, ...]:
        return self.terms.get(id(tensor), (id(tensor),))

    def module_ran(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        state = output[0] if isinstance(output, tuple) and output else output
        if not torch.is_tensor(state) or any(state is arg for arg in args):
            return
        self.alive.append(state)
        of_input = self._terms_of(args[0]) if args and torch.is_tensor(args[0]) else ()
        if _is_norm(module) and 0 in of_input:
            self.terms[id(state)] = of_input  # a normed residual stream is one still (post-norm models)
        elif 0 not in self._terms_of(state) and id(state) not in self.producer:
            self.terms[id(state)] = (id(state),)
            self.producer[id(state)] = name
            self.last[name] = state.detach().reshape(-1, state.shape[-1])[-1].clone()

    def added(self) -> list[str]:
        """Return the names of the modules whose outputs were added, in order; none if other terms were added, too."""
        terms = self._terms_of(self.output)
        names = [self.producer.get(term, "") for term in terms if term != 0]
        return names if 0 in terms and all(names) else []


@torch.no_grad()
def _follow(model: nn.Module, block: nn.Module, change: bool) -> _Trace:
    device = next(model.parameters()).device
    ids = torch.arange(_PROBE_TOKENS, device=device)[None]
    traces: list[_Trace] = []
    following = ExitStack()

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = input_of(args, kwargs)
        if change:
            state = state.clone()
            state[:, 0] = state[:, 1].flip(-1) + state[:, 0]
            args, kwargs = ((state, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": state})
        traces.append(_Trace(state))
        following.enter_context(traces[0])
        return args, kwargs

    def after(_: nn.Module, __: Any, output: Any) -> None:
        following.close()
        traces[0].output = tensor_of(output)

    with _hooked_inside(block, traces):
        handles = [
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(after),
        ]
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        finally:
            following.close()
            for handle in handles:
                handle.remove()
    return traces[0]


@contextmanager
def _hooked_inside(block: nn.Module, traces: list[_Trace]) -> Iterator[None]:
    handles = []
    for name, module in block.named_modules():
        if name:

            def ran(module: nn.Module, args: tuple[Any, ...], output: Any, name: str = name) -> None:
                traces[0].module_ran(name, module, args, output)

            handles.append(module.register_forward_hook(ran))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_norm(module: nn.Module) -> bool:
    weights = list(module.parameters(recurse=False))
    return bool(weights) and not list(module.children()) and all(each.dim() == 1 for each in weights)


def _differs(a: Tensor, b: Tensor) -> bool:
    return bool((a.float() - b.float()).norm() > 1e-6 * a.float().norm())
