"""Test whether attributions are faithful: remove tokens from the model's input in their order, and run the model again.

Deletion removes the tokens with the highest contributions first; insertion keeps nothing but these (Petsiuk et al.
2018, RISE; comprehensiveness and sufficiency of DeYoung et al. 2020, ERASER). If the order is right, the logit falls in
deletion, or rises in insertion, faster than when tokens are taken at random.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.core.progress import progress
from pipeline.lm.forward import PromptForward
from pipeline.lm.mask import counted, norms_of
from pipeline.lm.tokens import PromptTokens
from pipeline.probes.attribution import Classifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METHODS = ("deletion", "insertion")
RANDOM = "random"
PROMPTS = 64  # test prompts of the target, at most
SHARES = (0, 10, 20, 30, 50, 70, 90, 100)  # percent of the tokens that may be removed
DRAWS = 3  # of random orders
FEWEST = 2  # tokens that may be removed, without which there is no order
COLUMNS = ("method", "order", "classifier", "share_of_tokens", "logit", "probability")
_Input = tuple[int, tuple[int, ...]]  # a prompt, and which of its positions stay of those that may go
_AT_ONCE = 512  # inputs whose activations are in memory at a time


@dataclass(frozen=True)
class Curves:
    """How logits change as tokens are removed."""

    classifiers: list[str]
    """Names of the classifiers, in the order of the last axis of `logits`."""
    logits: dict[tuple[str, str], np.ndarray]
    """float64 (prompts, draws, shares, classifiers) by method and order. An order is a classifier's name, or RANDOM."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield means over prompts and draws, one row (COLUMNS) per method, order, classifier and share (0 to 1)."""
        for (method, order), logits in self.logits.items():
            means, probabilities = logits.mean(axis=(0, 1)), expit(logits).mean(axis=(0, 1))
            for column, name in enumerate(self.classifiers):
                for row, share in enumerate(SHARES):
                    values = (share / 100, round(means[row, column], 4), round(probabilities[row, column], 4))
                    yield dict(zip(COLUMNS, (method, order, name, *values), strict=True))

    def areas(self) -> dict[str, Any]:
        """Return the area between the curve of each order and that of random orders, by method, order and classifier.

        It is positive where the order does better than random: below random in deletion, above it in insertion. It is
        given for the logit and for the probability, as mean over prompts and the standard error of that mean.
        """
        found: dict[str, Any] = {}
        for (method, order), logits in self.logits.items():
            if order == RANDOM:
                continue
            sign = 1 if method == "insertion" else -1
            random = self.logits[method, RANDOM]
            for column, name in enumerate(self.classifiers):
                figures: dict[str, float] = {}
                for what, scale in (("logit", np.asarray), ("probability", expit)):
                    own, chance = (scale(each[..., column]).mean(axis=1) for each in (logits, random))
                    areas = sign * np.trapezoid(own - chance, np.array(SHARES) / 100, axis=1)
                    figures[what] = float(areas.mean())
                    figures[f"{what}_error"] = float(areas.std(ddof=1) / len(areas) ** 0.5)
                found.setdefault(method, {}).setdefault(order, {})[name] = figures
        return found


def removable(tokens: PromptTokens, of_prompt: PromptTokens) -> list[np.ndarray]:
    """Return the positions in each prompt that may be removed: the candidates among the prompt's own tokens.

    Args:
        tokens: the prompts as the model reads them.
        of_prompt: the same prompts tokenised with keep="prompt", so without the tokens of the chat template.
    """
    return [
        np.intersect1d(kept[tokens.candidates(prompt)], of_prompt.kept[prompt])
        for prompt, kept in enumerate(tokens.kept)
    ]


def curves(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    may_go: Sequence[np.ndarray],
    point: Point,
    classifiers: Mapping[str, Classifier],
    *,
    norm_limit: float,
    batch_tokens: int,
    dtype: torch.dtype,
    seed: int,
) -> Curves:
    """Remove tokens from every prompt by each classifier's attribution and at random, and score what is left.

    Of the tokens that may go, a growing share is removed (deletion) or kept (insertion), highest contribution first.
    The other tokens always stay. At least one token that may go stays as well, since there must be something to pool:
    the last one of the order in deletion, the first one in insertion.

    Args:
        model: the model as `extract` runs it, reaching at least to `point`.
        tokens: the prompts as the model reads them.
        may_go: the positions in each prompt that may be removed. Outliers among them always stay.
        point: the point whose activations the classifiers read.
        classifiers: by name.
        norm_limit: the point's norm limit (see `pipeline.lm.mask`).
        batch_tokens, dtype: as in `extract`.
        seed: of the random orders.

    Returns: the curves of the prompts that have at least FEWEST tokens to remove.
    Raises: UserError when no prompt has.
    """
    how = (norm_limit, batch_tokens, dtype)
    rng = np.random.default_rng(seed)
    orders: dict[str, list[list[np.ndarray]]] = {name: [] for name in (*classifiers, RANDOM)}
    chosen: dict[int, np.ndarray] = {}  # by prompt, the positions that go
    first_pass = _states(model, tokens, point, *how, "attributing") if tokens.ids else ()
    for prompt, (positions, states) in enumerate(first_pass):
        goes = np.isin(positions, may_go[prompt])
        if goes.sum() < FEWEST:
            continue
        chosen[prompt] = positions[goes]
        for name, classifier in classifiers.items():
            by_token = classifier.by_token(states)[goes]
            orders[name].append([chosen[prompt][np.argsort(-by_token, kind="stable")]])
        orders[RANDOM].append([rng.permutation(chosen[prompt]) for _ in range(DRAWS)])
    if not chosen:
        raise UserError(
            f"no prompt of the target has {FEWEST} tokens that can be removed: raise extract.max_tokens or "
            "filter.min_chars"
        )

    numbers: dict[_Input, int] = {}  # of the inputs, each of which is run once
    wanted = {
        (method, order): np.array(
            [
                [[_number(numbers, prompt, _stays(draw, share, method)) for share in SHARES] for draw in draws]
                for prompt, draws in enumerate(by_prompt)
            ]
        )
        for method in METHODS
        for order, by_prompt in orders.items()
    }
    inputs = _inputs(tokens.some(list(chosen)), list(chosen.values()), list(numbers))
    logits = np.array(
        [
            [classifier.logit(states) for classifier in classifiers.values()]
            for _, states in _states(model, inputs, point, *how, "removing tokens")
        ]
    )
    return Curves(list(classifiers), {key: logits[places] for key, places in wanted.items()})


def _states(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    point: Point,
    norm_limit: float,
    batch_tokens: int,
    dtype: torch.dtype,
    doing: str,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield for each prompt the positions that count, and their activations, float32 (tokens, width)."""
    forward = PromptForward(model, tokens, [point], batch_tokens=batch_tokens, dtype=dtype)
    with progress(len(tokens.ids), doing, "input") as bar:
        for first in range(0, len(tokens.ids), _AT_ONCE):
            some = range(first, min(first + _AT_ONCE, len(tokens.ids)))
            rows = forward.run(some, lambda prompts, _: bar.update(prompts)).of[point]
            for prompt, states in zip(some, rows.split([len(tokens.kept[prompt]) for prompt in some]), strict=True):
                mask = counted(tokens.candidates(prompt), norms_of(states).numpy(), norm_limit)
                yield tokens.kept[prompt][mask], states[torch.from_numpy(mask)].float()


def _stays(order: np.ndarray, share: int, method: str) -> np.ndarray:
    """Return which positions of the order stay at a share, ascending; at least one."""
    count = round(share / 100 * len(order))
    left = order[: max(count, 1)] if method == "insertion" else order[min(count, len(order) - 1) :]
    return np.sort(left)


def _number(numbers: dict[_Input, int], prompt: int, stays: np.ndarray) -> int:
    return numbers.setdefault((prompt, tuple(stays.tolist())), len(numbers))


def _inputs(tokens: PromptTokens, may_go: Sequence[np.ndarray], numbers: Sequence[_Input]) -> PromptTokens:
    """Return the inputs that are left of the prompts when only the given positions stay of those that may go."""
    ids, kept = [], []
    for prompt, stays in numbers:
        left = np.ones(len(tokens.ids[prompt]), dtype=bool)
        left[may_go[prompt]] = False
        left[list(stays)] = True
        moved = np.cumsum(left) - 1
        ids.append(tokens.ids[prompt][left])
        kept.append(moved[tokens.kept[prompt][left[tokens.kept[prompt]]]].astype(np.int32))
    return PromptTokens([tokens.prompt_ids[prompt] for prompt, _ in numbers], ids, kept, tokens.special_ids)
