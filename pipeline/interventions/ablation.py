"""What a language model and the probes after it lose when latents are taken out of its activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

PROMPTS = 100  # test prompts of the target, and of the others, at most
# the sites of a block in the order in which they come to be
_ORDER = ("attn_out", "mlp_out", "layer_delta", "resid_post")


def downstream(point: Point, points: Sequence[Point]) -> list[Point]:
    """Those of the points that are `point` or come after it, in order."""

    def place(each: Point) -> tuple[int, int]:
        return each.layer, _ORDER.index(each.site)

    return sorted((each for each in points if place(each) >= place(point)), key=place)


@dataclass(frozen=True)
class Outcome:
    """Of the model with some latents taken out, float64 (prompts) each.

    logits: of the classifiers, by name; ce: cross-entropy, and kl: KL divergence of the next-token distributions from
    those of the model as it is, in nats a token, mean over a prompt's tokens that count; removed: norm of what is
    taken out as a share of the activation's, likewise. NaN where there is no such token, or the model predicts no next
    one.
    """

    logits: dict[str, np.ndarray]
    ce: np.ndarray
    kl: np.ndarray
    removed: np.ndarray

    @classmethod
    def empty(cls, names: Sequence[str], prompts: int) -> "Outcome":
        return cls({name: np.full(prompts, np.nan) for name in names}, *np.full((3, prompts), np.nan))

    def levels(self, rows: np.ndarray) -> dict[str, Any]:
        """Means over some prompts, bool (prompts)."""
        return {
            "ce": _mean(self.ce[rows]),
            "classifiers": {
                name: {"logit": _mean(logits[rows]), "probability": _mean(expit(logits[rows]))}
                for name, logits in self.logits.items()
            },
        }

    def changes(self, clean: "Outcome", rows: np.ndarray) -> dict[str, Any]:
        """Mean changes over some prompts, bool (prompts), from the model as it is."""
        return {
            "kl": _mean(self.kl[rows]),
            "ce": _mean((self.ce - clean.ce)[rows]),
            "removed_norm": _mean(self.removed[rows]),
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
    """Of nested results alike: `mean`, `low` and `high` (the extremes) in the place of each number."""
    if isinstance(results[0], dict):
        return {key: mean_and_range([each[key] for each in results]) for key in results[0]}
    return {"mean": float(np.mean(results)), "low": float(np.min(results)), "high": float(np.max(results))}


@torch.inference_mode()
def ablate(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    point: Point,
    sae: Sae,
    sets: Mapping[str, np.ndarray],
    classifiers: Mapping[str, tuple[Point, Classifier]],
    norm_limits: Mapping[Point, float],
    batch_tokens: int,
) -> tuple[Outcome, dict[str, Outcome]]:
    """Run the model as it is, and once for every set of latents without what these add to the activation.

    At tokens that count the activation x at `point` becomes x - sum over the set of f_i(x) W_dec[i]; what the SAE does
    not explain stays.

    Args:
        model: with its language-modelling head if it has one, at least up to the last of the classifiers' points.
        sets: latents by name.
        classifiers: by name, each with the point whose activations it reads, `point` or one downstream.
        norm_limits: of each of these points, see `pipeline.lm.mask`.
        batch_tokens: padded tokens in a forward pass.

    Returns: what became of the model as it is, and with each set taken out.
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
            for latents, outcome in zip(sets.values(), changed, strict=True):
                ablation = _Ablation(sae, latents)
                with splice.of(where.to(model.device), ablation):
                    _, changed_logits = _run(capture, batch, classifiers, norm_limits, outcome)
                _put(outcome.removed, batch, ablation.removed, where)
                if causal and before is not None and changed_logits is not None:
                    _put(outcome.ce, batch, cross_entropy(changed_logits[judged], after), judged)
                    _put(outcome.kl, batch, divergence(before, changed_logits[judged]), judged)
            bar.update(len(batch.prompts))
    return clean, dict(zip(sets, changed, strict=True))


class _Ablation:
    """x - sum of f_i(x) W_dec[i] over some latents i. removed: norm of the sum as a share of that of x, (tokens)."""

    def __init__(self, sae: Sae, latents: np.ndarray) -> None:
        self.sae = sae
        self.latents = torch.from_numpy(latents)
        self.removed = torch.empty(0)

    def __call__(self, x_ND: Tensor) -> Tensor:
        x = x_ND.float().cpu()
        part = self.sae.encode(x)[:, self.latents] @ self.sae.tensors["W_dec"][self.latents]
        self.removed = part.norm(dim=1) / x.norm(dim=1)
        return (x - part).to(x_ND)


def _run(
    capture: Capture,
    batch: Batch,
    classifiers: Mapping[str, tuple[Point, Classifier]],
    norm_limits: Mapping[Point, float],
    outcome: Outcome,
) -> tuple[dict[Point, Tensor], Tensor | None]:
    """Put the classifiers' logits into the outcome.

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
    """Put each prompt's mean of values (tokens), which are those of the tokens `where`, bool (B, S)."""
    for prompt, each in zip(batch.prompts, values.double().split(where.sum(dim=1).tolist()), strict=True):
        target[prompt] = float(each.mean())  # NaN without a token
