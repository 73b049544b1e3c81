"""Finding a transformer's blocks, and the attention and MLP in them, by structure and not by model name."""

from torch import nn

from pipeline.errors import UserError

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention", "self_attn_layer")
_MLP_NAMES = ("mlp", "feed_forward", "ffn", "feedforward")


def find_blocks(model: nn.Module, layers: int) -> nn.ModuleList:
    """The list of the model's `layers` blocks: the outermost ModuleList of that length.

    Raises: UserError that lists the model's modules when there is none.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    fitting = [name for name, module in lists.items() if len(module) == layers]
    if not fitting:
        raise UserError(
            f"{type(model).__name__} has no list of {layers} transformer blocks: its module lists are "
            f"{', '.join(f'{name} ({len(module)})' for name, module in lists.items()) or 'none'}"
        )
    return lists[min(fitting, key=lambda name: name.count("."))]


def find_attention(block: nn.Module) -> nn.Module:
    """The block's attention, output projection included. Raise UserError that lists the block's modules."""
    return _find_child(block, _ATTENTION_NAMES, "attn_out")


def find_mlp(block: nn.Module) -> nn.Module:
    """The block's MLP, output projection included. Raise UserError that lists the block's modules."""
    return _find_child(block, _MLP_NAMES, "mlp_out")


def _find_child(block: nn.Module, names: tuple[str, ...], site: str) -> nn.Module:
    children = dict(block.named_children())
    for name in names:
        # BERT's kind adds the residual and norms the sum in a child `output`: what comes out is not what is added
        if name in children and not hasattr(children[name], "output"):
            return children[name]
    raise UserError(
        f"site {site} is not found in {type(block).__name__}, whose modules are {', '.join(children)}: "
        "use resid_post or layer_delta with this model"
    )
