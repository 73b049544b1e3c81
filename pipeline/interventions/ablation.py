"""Measure what a language model, and the probes after it, lose when latents are removed from its activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pipeline.core.points import Point
from pipeline.core.progress import progress
from pipeline.lm.capture import Capture
from pipeline.lm.shared_prefix import is_causal
from pipeline.lm.splice import Batch, Splice, batches, cross_entropy, divergence
from pipeline.lm.tokens import PromptTokens
from pipeline.probes.attribution import Classifier
from pipeline.sae.model import Sae

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPTS = 32  # test prompts of the target, and of the others, at most: they are run once for each set of latents
# the sites of a block in the order in which they come to be
_ORDER = ("attn_out", "mlp_out", "layer_delta", "resid_post")


def downstream(point: Point, points: Sequence[Point]) -> list[Point]:
    """Return those of the points that are `point` or come after it in the model, in order."""

    def place(each: Point) -> tuple[int, int]:
        return each.layer, _ORDER.index(each.site)

    return sorted((each for each in points if place(each) >= place(point)), key=place)


@dataclass(frozen=True)
class Removal:
    """Which latents are removed, and by what factor what they add is multiplied before it is taken away."""

    latents: np.ndarray
    """int (k)."""
    factors: np.ndarray
    """float64 (prompts)."""


@dataclass(frozen=True)
class Outcome:
    """What the model and the classifiers do on each prompt, with some latents removed or with none.

    All arrays are float64 (prompts). ce, kl and removed are means over the tokens of a prompt that count. They are NaN
    where a prompt has no such token, and ce and kl also where the model predicts no next token.
    """

    logits: dict[str, np.ndarray]
    """The logit of each classifier, by name."""
    ce: np.ndarray
    """Cross-entropy of the next token, in nats per token."""
    kl: np.ndarray
    """KL divergence of the next-token distribution from that of the unchanged model, in nats per token."""
    removed: np.ndarray
    """Norm of what is removed from an activation, as a share of the activation's norm."""

    @classmethod
    def empty(cls, names: Sequence[str], prompts: int) -> "Outcome":
        """Return an outcome of NaNs, to be filled in."""
        return cls({name: np.full(prompts, np.nan) for name in names}, *np.full((3, prompts), np.nan))

    def levels(self, rows: np.ndarray) -> dict[str, Any]:
        """Return means over some of the prompts. `rows`: bool (prompts)."""
        return {
            "ce": _mean(self.ce[rows]),
            "classifiers": {
                name: {"logit": _mean(logits[rows]), "probability": _mean(expit(logits[rows]))}
                for name, logits in self.logits.items()
            },
        }

    def removed_norm(self, rows: np.ndarray) -> float:
        """Return the mean of `removed` over some of the prompts. `rows`: bool (prompts)."""
        return _mean(self.removed[rows])

    def changes(self, clean: "Outcome", rows: np.ndarray) -> dict[str, Any]:
        """Return mean changes from the unchanged model over some of the prompts. `rows`: bool (prompts)."""
        return {
            "kl": _mean(self.kl[rows]),
            "ce": _mean((self.ce - clean.ce)[rows]),
            "classifiers": {
                name: {
                    "logit": _mean((logits - clean.logits[name])[rows]),
                    "probability": _mean((expit(logits) - expit(clean.logits[name]))[rows]),
                }
                for name, logits in self.logits.items()
            },
        }


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def mean_and_range(results: Sequence[Any]) -> Any:
    """Replace each number by `mean`, `low` and `high` (the extremes) over several results of the same nested form."""
    if isinstance(results[0], dict):
        return {key: mean_and_range([each[key] for each in results]) for key in results[0]}
    return {"mean": float(np.mean(results)), "low": float(np.min(results)), "high": float(np.max(results))}


def beside(value: Any, draws: Sequence[Any]) -> Any:
    """Compare each number of a nested result with the same one of several random draws.

    Returns: in the same form, `mean`, `low` and `high` of the draws, and `p_value`: two-sided, from the rank of the
        number among them. It is the chance that one of 1 + D numbers drawn alike lies so far out, so 2 / (1 + D) at
        least.
    """
    if isinstance(value, dict):
        return {key: beside(value[key], [each[key] for each in draws]) for key in value}
    numbers = np.array(draws)
    further = min((numbers >= value).sum(), (numbers <= value).sum()) + 1
    known = not np.isnan([value, *numbers]).any()
    p_value = min(2 * further / (len(numbers) + 1), 1.0) if known else float("nan")
    return mean_and_range(draws) | {"p_value": float(p_value)}


@torch.inference_mode()
def ablate(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    point: Point,
    sae: Sae,
    sets: Mapping[str, Removal],
    classifiers: Mapping[str, tuple[Point, Classifier]],
    norm_limits: Mapping[Point, float],
    batch_tokens: int,
) -> tuple[Outcome, dict[str, Outcome]]:
    """Run the unchanged model, and once more for each set of latents with these removed.

    At tokens that count, the activation x at `point` becomes x - factor * sum over i in the set of f_i(x) W_dec[i]. So
    the part of x that the SAE does not explain stays.

    Args:
        model: must reach at least the last of the classifiers' points. With its language-modelling head, if it has
            one, next-token predictions are compared, too.
        tokens: the prompts.
        point: where latents are removed.
        sae: the SAE that they are of.
        sets: what is removed, by name of the set.
        classifiers: by name, each with the point whose activations it reads: `point`, or one after it.
        norm_limits: the norm limit of each of these points (see `pipeline.lm.mask`).
        batch_tokens: largest number of tokens in a forward pass, padding included.

    Returns: the outcome of the unchanged model, and the outcomes by set.
    Raises: UserError when a point's site is not found in the model.
    """
    capture = Capture(model, sorted({where for where, _ in classifiers.values()} | {point}))
    with capture:
        causal = is_causal(capture)
    splice = Splice(model, point)
    clean, *changed = (Outcome.empty(list(classifiers), len(tokens.ids)) for _ in (None, *sets))
    with progress(len(tokens.ids), "ablating", "prompt") as bar:
        for batch in batches(tokens, range(len(tokens.ids)), batch_tokens):
            found, before = _run(capture, batch, classifiers, norm_limits, clean)
            where = batch.counted(found[point], norm_limits[point])
            judged = batch.judged(where)
            after = batch.after(judged).to(model.device)
            if causal and before is not None:
                before = before[judged]
                _put(clean.ce, batch, cross_entropy(before, after), judged)
            x = found[point].float().cpu()[where[batch.kept]]
            encoded, counts = sae.encode(x), where.sum(dim=1)
            for removal, outcome in zip(sets.values(), changed, strict=True):
                latents = torch.from_numpy(removal.latents)
                factors = torch.from_numpy(removal.factors[batch.prompts]).float().repeat_interleave(counts)
                part = factors[:, None] * (encoded[:, latents] @ sae.tensors["W_dec"][latents])
                with splice.of(where.to(model.device), partial(_without, part)):
                    _, changed_logits = _run(capture, batch, classifiers, norm_limits, outcome)
                _put(outcome.removed, batch, part.norm(dim=1) / x.norm(dim=1), where)
                if causal and before is not None and changed_logits is not None:
                    _put(outcome.ce, batch, cross_entropy(changed_logits[judged], after), judged)
                    _put(outcome.kl, batch, divergence(before, changed_logits[judged]), judged)
            bar.update(len(batch.prompts))
    return clean, dict(zip(sets, changed, strict=True))


def _without(part_ND: Tensor, x_ND: Tensor) -> Tensor:
    return (x_ND.float().cpu() - part_ND).to(x_ND)


def _run(
    capture: Capture,
    batch: Batch,
    classifiers: Mapping[str, tuple[Point, Classifier]],
    norm_limits: Mapping[Point, float],
    outcome: Outcome,
) -> tuple[dict[Point, Tensor], Tensor | None]:
    """Run the model on a batch and put the classifiers' logits into the outcome.

    Returns: the activations of the kept tokens, and the next-token logits (B, S - 1, vocabulary), if any.
    """
    model: Any = capture.model
    with capture:  # its hooks come after those that splice, and so see what these leave
        found, output = capture.forward(batch.kept_rows.to(model.device), **batch.inputs(model))
    for name, (point, classifier) in classifiers.items():
        where = batch.counted(found[point], norm_limits[point])
        states = found[point].float().cpu()[where[batch.kept]].split(where.sum(dim=1).tolist())
        for prompt, x_TD in zip(batch.prompts, states, strict=True):
            outcome.logits[name][prompt] = classifier.logit(x_TD)
    return found, output.logits[:, :-1] if hasattr(output, "logits") else None


def _put(target: np.ndarray, batch: Batch, values: Tensor, where: Tensor) -> None:
    """Put the mean of each prompt's values into `target`. `values` are those of the tokens in `where`, bool (B, S)."""
    for prompt, each in zip(batch.prompts, values.double().split(where.sum(dim=1).tolist()), strict=True):
        target[prompt] = float(each.mean())  # NaN without a token
