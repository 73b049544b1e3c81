"""Whether attributions are faithful: tokens are removed from the model's input in their order, and the model rerun.

Deletion removes the tokens that are said to matter most, insertion keeps nothing but them (Petsiuk et al. 2018, RISE;
comprehensiveness and sufficiency of DeYoung et al. 2020, ERASER). Where the order is right the logit falls, or rises,
faster than when tokens are taken at random.
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
    """Logits, float64 (prompts, draws, shares, classifiers), by method and order: a classifier's name, or random.

    classifiers: names, in the order of the last axis.
    """

    classifiers: list[str]
    logits: dict[tuple[str, str], np.ndarray]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Means over prompts and draws, one row (COLUMNS) for every method, order, classifier and share (0 to 1)."""
        for (method, order), logits in self.logits.items():
            means, probabilities = logits.mean(axis=(0, 1)), expit(logits).mean(axis=(0, 1))
            for column, name in enumerate(self.classifiers):
                for row, share in enumerate(SHARES):
                    values = (share / 100, round(means[row, column], 4), round(probabilities[row, column], 4))
                    yield dict(zip(COLUMNS, (method, order, name, *values), strict=True))

    def areas(self) -> dict[str, Any]:
        """By method, order and classifier the area between the curve of the order and that of random ones.

        Positive where the order does better than random ones: below them in deletion, above in insertion. Of the logit
        and of the probability: mean over prompts, and its standard error.
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
    """For each prompt the positions that may be removed: the mask's candidates among the prompt's own tokens.

    Args:
        of_prompt: the same prompts, tokenised with `keep` prompt, without the chat template's tokens.
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
    """Order the tokens of every prompt by each classifier's attribution and at random, remove them, and score again.

    A share of the tokens that may go is removed, or kept, highest contribution first; the others always stay, and
    one of those that may go does, too, since nothing would be left to pool: the last of the order in deletion, the
    first in insertion.

    Args:
        model: as `extract` runs it, at least up to the point; batch_tokens, dtype: as of `extract`.
        may_go: for each prompt the positions that may be removed; outliers among them always stay.
        classifiers: by name, on the activations at the point.
        norm_limit: of these, see `pipeline.lm.mask`.
        seed: of the random orders.

    Returns: the curves of the prompts that have at least FEWEST tokens to remove.
    Raises: UserError when none has.
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
    """Of one prompt after the other the positions that count, and their activations, float32 (tokens, width)."""
    forward = PromptForward(model, tokens, [point], batch_tokens=batch_tokens, dtype=dtype)
    with progress(len(tokens.ids), doing, "input") as bar:
        for first in range(0, len(tokens.ids), _AT_ONCE):
            some = range(first, min(first + _AT_ONCE, len(tokens.ids)))
            rows = forward.run(some, lambda prompts, _: bar.update(prompts)).of[point]
            for prompt, states in zip(some, rows.split([len(tokens.kept[prompt]) for prompt in some]), strict=True):
                mask = counted(tokens.candidates(prompt), norms_of(states).numpy(), norm_limit)
                yield tokens.kept[prompt][mask], states[torch.from_numpy(mask)].float()


def _stays(order: np.ndarray, share: int, method: str) -> np.ndarray:
    """Which positions of the order are left at a share, ascending; at least one."""
    count = round(share / 100 * len(order))
    left = order[: max(count, 1)] if method == "insertion" else order[min(count, len(order) - 1) :]
    return np.sort(left)


def _number(numbers: dict[_Input, int], prompt: int, stays: np.ndarray) -> int:
    return numbers.setdefault((prompt, tuple(stays.tolist())), len(numbers))


def _inputs(tokens: PromptTokens, may_go: Sequence[np.ndarray], numbers: Sequence[_Input]) -> PromptTokens:
    """The inputs with these prompts and positions that stay of those that may go."""
    ids, kept = [], []
    for prompt, stays in numbers:
        left = np.ones(len(tokens.ids[prompt]), dtype=bool)
        left[may_go[prompt]] = False
        left[list(stays)] = True
        moved = np.cumsum(left) - 1
        ids.append(tokens.ids[prompt][left])
        kept.append(moved[tokens.kept[prompt][left[tokens.kept[prompt]]]].astype(np.int32))
    return PromptTokens([tokens.prompt_ids[prompt] for prompt, _ in numbers], ids, kept, tokens.special_ids)
