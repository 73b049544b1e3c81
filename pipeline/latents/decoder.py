"""What each latent writes: the tokens that its decoder direction makes likelier, and the latents that write alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.core.progress import progress
from pipeline.lm.blocks import find_blocks, tensor_of

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PreTrainedModel

Ranked: TypeAlias = tuple[Tensor, Tensor]  # numbers int64 and values, one row a latent
CHUNK = 256  # latents looked at at once
_PROBE_TOKENS = 4
_LARGE = 1e3  # beside which the small number that norms add under the root is nothing
_TOLERANCE = 1e-3  # of states of norm 1


@dataclass(frozen=True)
class Unembedding:
    """What follows a language model's last block, as a linear map: the final norm and the head."""

    weights: Tensor
    """(V, d), the head's weights."""
    gain: Tensor
    """(d), the final norm's factors; 1 where there is no norm."""
    centres: bool
    """Whether the norm subtracts the mean of the state, as LayerNorm does and RMSNorm does not."""
    norm: bool
    """Whether there is a norm."""

    def logits(self, directions_ND: Tensor) -> Tensor:
        """Return what directions (N, d) of the residual stream add to the logits, (N, V), less their mean.

        The mean over the vocabulary is subtracted since a shift of all logits changes no probability. The final norm's
        division by the norm of the state is left out; it is the same factor for all directions. So is what later blocks
        make of the directions (a "logit lens" on weights).
        """
        if self.centres:
            directions_ND = directions_ND - directions_ND.mean(dim=1, keepdim=True)
        scaled = directions_ND * self.gain
        return (scaled @ self.weights.T).sub_((scaled @ self.weights.mean(dim=0))[:, None])


@torch.no_grad()
def unembedding(model: "PreTrainedModel", vocabulary: int) -> Unembedding | None:
    """Find a language model's final norm and head by running it on a few tokens.

    Args:
        vocabulary: number of tokens that the tokenizer has. Rows that the head has beyond these are left out.

    Returns: None when the head has no plain weights (it is missing, quantised or not in memory), or when it reads
        neither the last block's output nor a norm of that, as in models that transform the state before the head.
    """
    head = model.get_output_embeddings()
    weights = getattr(head, "weight", None)
    if not torch.is_tensor(weights) or weights.is_meta or not weights.is_floating_point():
        return None
    state, read, modules = _follow(model, head)
    if weights.shape[1] != state.shape[-1]:
        return None
    weights = weights[:vocabulary].float()
    if torch.equal(state, read):
        return Unembedding(weights, torch.ones(state.shape[-1]), centres=False, norm=False)
    for module in modules:
        signs = _LARGE * (1 - 2 * (torch.arange(state.shape[-1]) % 2)).to(state)[None, None]
        # a norm leaves a vector of mean 0 as it is, but for its length, its own factors and what it adds
        one, other = module(signs), module(-signs)
        gain, bias = ((one - other) / 2 * signs.sign()).flatten(), (one + other) / 2
        centres = torch.allclose(module(signs.abs()), module(-signs.abs()))
        normed = (state - state.mean(dim=-1, keepdim=True) if centres else state) * gain
        if torch.allclose(normalize(normed, dim=-1), normalize(read - bias, dim=-1), atol=_TOLERANCE):
            return Unembedding(weights, gain.float(), centres, norm=True)
    return None


def _follow(model: Any, head: nn.Module) -> tuple[Tensor, Tensor, list[nn.Module]]:
    """Return the last block's output, what the head reads, and the modules that may turn the first into the second."""
    seen: dict[str, Tensor] = {}
    after_block: list[tuple[nn.Module, Tensor]] = []

    def ran(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module is block:
            seen["state"] = tensor_of(output)
        elif module is head:
            seen["read"] = args[0]
        elif "state" in seen and args and torch.is_tensor(args[0]) and torch.equal(args[0], seen["state"]):
            after_block.append((module, tensor_of(output)))

    block = find_blocks(model.base_model, model.config.get_text_config().num_hidden_layers)[-1]
    handles = [module.register_forward_hook(ran) for module in model.modules()]
    try:
        ids = torch.arange(_PROBE_TOKENS, device=model.device)[None]
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    between = [module for module, output in after_block if torch.equal(output, seen["read"])]
    return seen["state"], seen["read"], between


def logit_effects(decoder_LD: Tensor, head: Unembedding, count: int) -> tuple[Ranked, Ranked]:
    """Return the tokens whose logits each latent's decoder row changes most, as two rankings of `count` tokens.

    The first ranking has the logits that rise most, highest first; the second those that fall most, lowest first. A
    ranking is ids (L, count) and what one unit of the latent adds to these logits.
    """
    highest, lowest = [], []
    with progress(len(decoder_LD), "logit effects", "latent") as bar:
        for rows in decoder_LD.split(CHUNK):
            logits = head.logits(rows)
            highest.append(logits.topk(count))
            lowest.append(logits.topk(count, largest=False))
            bar.update(len(rows))
    return _joined(highest), _joined(lowest)


def neighbours(decoder_LD: Tensor, count: int) -> Ranked:
    """Return the latents whose decoder rows are most similar, and their cosine similarities, both (L, count).

    The most similar come first. With fewer than count + 1 latents there are L - 1 of them.
    """
    unit = normalize(decoder_LD, dim=1)
    found = []
    for first in range(0, len(unit), CHUNK):
        cosines = unit[first : first + CHUNK] @ unit.T
        rows = torch.arange(len(cosines))
        cosines[rows, first + rows] = -torch.inf
        found.append(cosines.topk(min(count, len(unit) - 1)))
    return _joined(found)


def _joined(parts: list[Any]) -> Ranked:
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
