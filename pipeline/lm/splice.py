"""Run a language model with its activations at a point replaced, and measure how far its predictions move."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.points import Point
from pipeline.lm.blocks import find_blocks, find_sublayers, input_of, missing_site, tensor_of
from pipeline.lm.forward import pad
from pipeline.lm.mask import counted, norms_of
from pipeline.lm.tokens import PromptTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 128  # tokens whose next-token distributions are compared at once


@dataclass(frozen=True)
class Batch:
    """B prompts of similar length for one forward pass, padded to S tokens."""

    prompts: list[int]
    """Numbers of the prompts."""
    ids: Tensor
    """int64 (B, S), the tokens."""
    mask: Tensor
    """int64 (B, S), 1 for tokens and 0 for padding."""
    kept: Tensor
    """bool (B, S), see `pipeline.lm.mask`."""
    candidate: Tensor
    """bool (B, S), see `pipeline.lm.mask`."""

    @property
    def kept_rows(self) -> Tensor:
        """Return the places of the kept tokens in the flattened (B x S), int64 (K)."""
        return self.kept.flatten().nonzero()[:, 0]

    def counted(self, states_KD: Tensor, limit: float) -> Tensor:
        """Return which tokens count, bool (B, S), from the kept ones' activations at a point and its norm limit."""
        offsets = np.append(0, self.kept.sum(dim=1).cumsum(dim=0).numpy())
        found = counted(self.candidate[self.kept].numpy(), norms_of(states_KD).numpy(), limit, offsets)
        where = torch.zeros_like(self.kept)
        where[self.kept] = torch.from_numpy(found)
        return where

    def judged(self, where: Tensor) -> Tensor:
        """Return which of the tokens `where`, bool (B, S), have a next one: bool (B, S - 1)."""
        return where[:, :-1] & self.mask[:, 1:].bool()

    def after(self, judged: Tensor) -> Tensor:
        """Return the token that follows each judged token, int64 (judged)."""
        return self.ids[:, 1:][judged]

    def inputs(self, model: "PreTrainedModel") -> dict[str, Any]:
        """Return the arguments to call the model with."""
        options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
        return {"input_ids": self.ids.to(model.device), "attention_mask": self.mask.to(model.device), **options}


def batches(tokens: PromptTokens, prompts: Sequence[int], batch_tokens: int) -> Iterator[Batch]:
    """Yield prompts, sorted by length, in batches of at most `batch_tokens` tokens with padding, or of one prompt."""
    batch: list[int] = []
    for prompt in sorted(prompts, key=lambda prompt: len(tokens.ids[prompt])):
        if batch and (len(batch) + 1) * len(tokens.ids[prompt]) > batch_tokens:
            yield _batch(tokens, batch)
            batch = []
        batch.append(prompt)
    if batch:
        yield _batch(tokens, batch)


def _batch(tokens: PromptTokens, prompts: list[int]) -> Batch:
    ids, mask = pad([torch.from_numpy(tokens.ids[prompt]) for prompt in prompts])
    kept, candidate = torch.zeros_like(mask, dtype=torch.bool), torch.zeros_like(mask, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        places = torch.from_numpy(tokens.kept[prompt]).long()
        kept[row, places] = True
        candidate[row, places] = torch.from_numpy(tokens.candidates(prompt))
    return Batch(prompts, ids, mask, kept, candidate)


def cross_entropy(logits: Tensor, after: Tensor) -> Tensor:
    """Return the cross-entropy in nats of each token, float32 (tokens).

    Args:
        logits: (tokens, vocabulary).
        after: the tokens that really followed.
    """
    pairs = zip(logits.split(_ROWS), after.split(_ROWS), strict=True)
    parts = [nn.functional.cross_entropy(rows.float(), wanted, reduction="none") for rows, wanted in pairs]
    return torch.cat(parts).cpu()


def divergence(logits: Tensor, changed: Tensor) -> Tensor:
    """Return KL(logits || changed) in nats of each token, float32 (tokens).

    Args:
        logits, changed: next-token logits (tokens, vocabulary).
    """
    parts = [
        nn.functional.kl_div(b.float().log_softmax(-1), a.float().log_softmax(-1), log_target=True, reduction="none")
        for a, b in zip(logits.split(_ROWS), changed.split(_ROWS), strict=True)
    ]
    return torch.cat([part.sum(-1) for part in parts]).cpu()


class Splice:
    """A model in which the activations at a point can be replaced while it runs."""

    def __init__(self, model: "PreTrainedModel", point: Point) -> None:
        """Find the point's module. Raise UserError that lists the block's modules when its site is not found."""
        base: Any = model.base_model
        self.block = find_blocks(base, model.config.num_hidden_layers)[point.layer]
        self.module: nn.Module = self.block
        self.is_delta = point.site == "layer_delta"
        if point.site in ("attn_out", "mlp_out"):
            found = find_sublayers(base, self.block)
            if point.site not in found:
                raise missing_site(point.site, self.block)
            self.module = found[point.site]

    @contextmanager
    def of(self, where: Tensor, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within the block, replace the activations (tokens, width) by what `change` makes of them.

        Args:
            where: bool (batch, sequence), the tokens at which they are replaced.
        """
        before: dict[str, Tensor] = {}

        def keep_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before["x"] = input_of(args, kwargs).clone()

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            state = tensor_of(output)
            new = state.reshape(*where.shape, -1).clone()
            if self.is_delta:
                new[where] = before["x"][where] + change(new[where] - before["x"][where])
            else:
                new[where] = change(new[where])
            new = new.reshape(state.shape)
            return new if torch.is_tensor(output) else (new, *output[1:])

        with ExitStack() as hooks:
            if self.is_delta:
                hooks.callback(self.block.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
            hooks.callback(self.module.register_forward_hook(hook).remove)
            yield
