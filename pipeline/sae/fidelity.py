"""What a sparse autoencoder costs the language model: its reconstruction put in place of the activations."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.activations.blocks import find_blocks, find_sublayers, input_of, missing_site, tensor_of
from pipeline.activations.capture import Capture
from pipeline.activations.forward import pad
from pipeline.activations.reuse import is_causal
from pipeline.activations.tokens import PromptTokens
from pipeline.points import Point
from pipeline.progress import progress
from pipeline.sae.model import Sae

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH = 8  # prompts in a forward pass
ROWS = 128  # tokens whose next-token distributions are compared at once


@torch.inference_mode()
def fidelity(
    model: "PreTrainedModel", tokens: PromptTokens, point: Point, sae: Sae, prompts: range
) -> dict[str, float] | None:
    """Splice the reconstruction into a causal language model, and compare with the model as it is and with zeros.

    At the tokens that SAEs are trained on (kept, neither first nor special) the activation at `point` is replaced,
    and the next-token distributions at those tokens are looked at.

    Args:
        model: with its language-modelling head, all blocks.
        prompts: numbers of the prompts of `tokens` to run.

    Returns: mean cross-entropy in nats of the model (`ce`), with the reconstruction (`ce_sae`) and with zeros
        (`ce_zero`); KL divergence from the model's distribution of the latter two (`kl_sae`, `kl_zero`); and the
        shares recovered, (ce_zero - ce_sae) / (ce_zero - ce) and 1 - kl_sae / kl_zero. None when the model is not
        causal, or no prompt has a token to look at.
    Raises: UserError when the point's site is not found in the model.
    """
    base: Any = model.base_model
    with Capture(base, [point]) as capture:
        if not is_causal(capture):
            return None
    total = dict.fromkeys(("tokens", "ce", "ce_sae", "ce_zero", "kl_sae", "kl_zero"), 0.0)
    ordered = sorted(prompts, key=lambda prompt: len(tokens.ids[prompt]))
    with progress(len(ordered), "fidelity", "prompt") as bar:
        for first in range(0, len(ordered), BATCH):
            batch = ordered[first : first + BATCH]
            ids, mask = pad([torch.from_numpy(tokens.ids[prompt]) for prompt in batch])
            spliced = torch.zeros_like(mask, dtype=torch.bool)
            for row, prompt in enumerate(batch):
                kept = tokens.kept[prompt]
                spliced[row, torch.from_numpy(kept[(kept > 0) & ~_special(tokens, prompt)]).long()] = True
            _add_batch(total, model, point, sae, ids, mask, spliced)
            bar.update(len(batch))
    count = total.pop("tokens")
    if not count:
        return None
    means = {name: value / count for name, value in total.items()}
    return means | {
        "ce_recovered": (means["ce_zero"] - means["ce_sae"]) / (means["ce_zero"] - means["ce"]),
        "kl_recovered": 1 - means["kl_sae"] / means["kl_zero"],
    }


def _special(tokens: PromptTokens, prompt: int) -> np.ndarray:
    return np.isin(tokens.ids[prompt][tokens.kept[prompt]], tokens.special_ids)


def _add_batch(
    total: dict[str, float],
    model: "PreTrainedModel",
    point: Point,
    sae: Sae,
    ids: Tensor,
    mask: Tensor,
    spliced: Tensor,
) -> None:
    # the last real token has no next one
    judged = spliced[:, :-1] & mask[:, 1:].bool()
    after = ids[:, 1:][judged].to(model.device)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "sae": lambda rows: sae.decode(sae.encode(rows.float().cpu())).to(rows),
        "zero": torch.zeros_like,
    }
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device), "use_cache": False}
    clean = model(**inputs).logits[:, :-1][judged]
    total["tokens"] += len(clean)
    total["ce"] += _cross_entropy(clean, after)
    for name, change in changes.items():
        with spliced_in(model, point, spliced.to(model.device), change):
            logits = model(**inputs).logits[:, :-1][judged]
        total[f"ce_{name}"] += _cross_entropy(logits, after)
        total[f"kl_{name}"] += sum(
            torch.nn.functional.kl_div(
                b.float().log_softmax(-1), a.float().log_softmax(-1), log_target=True, reduction="sum"
            ).item()
            for a, b in zip(clean.split(ROWS), logits.split(ROWS), strict=True)
        )


def _cross_entropy(logits: Tensor, after: Tensor) -> float:
    return sum(
        torch.nn.functional.cross_entropy(rows.float(), wanted, reduction="sum").item()
        for rows, wanted in zip(logits.split(ROWS), after.split(ROWS), strict=True)
    )


@contextmanager
def spliced_in(
    model: "PreTrainedModel", point: Point, where: Tensor, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within the block, the activations (tokens, width) at `point` are replaced by `change` of them.

    Args:
        where: bool (batch, sequence), the tokens at which they are.
    """
    base: Any = model.base_model
    block = find_blocks(base, model.config.num_hidden_layers)[point.layer]
    before: dict[str, Tensor] = {}

    def replaced(output: Any, state: Tensor) -> Any:
        return state if torch.is_tensor(output) else (state, *output[1:])

    def keep_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before["x"] = input_of(args, kwargs).clone()

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        state = tensor_of(output)
        new = state.reshape(*where.shape, -1).clone()
        if point.site == "layer_delta":
            new[where] = before["x"][where] + change(new[where] - before["x"][where])
        else:
            new[where] = change(new[where])
        return replaced(output, new.reshape(state.shape))

    module: nn.Module = block
    if point.site in ("attn_out", "mlp_out"):
        found = find_sublayers(base, block)
        if point.site not in found:
            raise missing_site(point.site, block)
        module = found[point.site]
    with ExitStack() as hooks:
        if point.site == "layer_delta":
            hooks.callback(block.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
        hooks.callback(module.register_forward_hook(hook).remove)
        yield
