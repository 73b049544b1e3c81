"""Measure what a sparse autoencoder costs the language model when its reconstruction replaces the activations."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.core.points import Point
from pipeline.core.progress import progress
from pipeline.lm.capture import Capture
from pipeline.lm.shared_prefix import is_causal
from pipeline.lm.splice import Batch, Splice, batches, cross_entropy, divergence
from pipeline.lm.tokens import PromptTokens
from pipeline.sae.model import Sae

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 2048  # padded tokens in a forward pass


@torch.inference_mode()
def fidelity(
    model: "PreTrainedModel", tokens: PromptTokens, point: Point, norm_limit: float, sae: Sae, prompts: range
) -> dict[str, float] | None:
    """Run a causal language model with the reconstruction, with zeros and unchanged, and compare its predictions.

    The activation at `point` is replaced at the tokens that count, and the next-token distributions at these tokens
    are compared.

    Args:
        model: with its language-modelling head and all blocks.
        norm_limit: the point's norm limit (see `pipeline.lm.mask`).
        prompts: numbers of the prompts of `tokens` to run.

    Returns: None when the model is not causal, or no prompt has a token to look at. Otherwise
        ce, ce_sae, ce_zero: mean cross-entropy in nats per token: unchanged, with the reconstruction, with zeros.
        kl_sae, kl_zero: KL divergence from the unchanged model's distribution, in nats per token.
        ce_recovered: (ce_zero - ce_sae) / (ce_zero - ce).
        kl_recovered: 1 - kl_sae / kl_zero.
    Raises: UserError when the point's site is not found in the model.
    """
    capture = Capture(model, [point])
    with capture:
        if not is_causal(capture):
            return None
    splice = Splice(model, point)
    total = dict.fromkeys(("tokens", "ce", "ce_sae", "ce_zero", "kl_sae", "kl_zero"), 0.0)
    with progress(len(prompts), "fidelity", "prompt") as bar:
        for batch in batches(tokens, prompts, BATCH_TOKENS):
            _add_batch(total, capture, splice, point, norm_limit, sae, batch)
            bar.update(len(batch.prompts))
    count = total.pop("tokens")
    if not count:
        return None
    means = {name: value / count for name, value in total.items()}
    return means | {
        "ce_recovered": (means["ce_zero"] - means["ce_sae"]) / (means["ce_zero"] - means["ce"]),
        "kl_recovered": 1 - means["kl_sae"] / means["kl_zero"],
    }


def _add_batch(
    total: dict[str, float], capture: Capture, splice: Splice, point: Point, norm_limit: float, sae: Sae, batch: Batch
) -> None:
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "sae": lambda rows: sae.decode(sae.encode(rows.float().cpu())).to(rows),
        "zero": torch.zeros_like,
    }
    model: Any = capture.model
    inputs = batch.inputs(model)
    with capture:
        found, output = capture.forward(batch.kept_rows.to(model.device), **inputs)
    where = batch.counted(found[point], norm_limit)
    judged = batch.judged(where)
    after = batch.after(judged).to(model.device)
    clean = output.logits[:, :-1][judged]
    total["tokens"] += len(clean)
    total["ce"] += _sum(cross_entropy(clean, after))
    for name, change in changes.items():
        with splice.of(where.to(model.device), change):
            logits = model(**inputs).logits[:, :-1][judged]
        total[f"ce_{name}"] += _sum(cross_entropy(logits, after))
        total[f"kl_{name}"] += _sum(divergence(clean, logits))


def _sum(values: Tensor) -> float:
    return float(values.double().sum())
