"""Test whether attributions are faithful: remove tokens from the model's input in their order, and run the model again.

Deletion removes the tokens with the highest contributions first; insertion keeps nothing but these (Petsiuk et al.
2018, RISE; comprehensiveness and sufficiency of DeYoung et al. 2020, ERASER). If the order is right, the logit falls in
deletion, or rises in insertion, faster than when tokens are taken at random. How fast it can fall is not known; the
reference is the order of how much the logit falls when each token alone is left out and the model runs again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
LEFT_OUT = "left_out_"  # begins the name of the order by leaving out one token at a time, before that of the classifier
PIECES = 64  # of a prompt that are left out one at a time, at most: of longer ones several tokens in a row
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
    """float64 (prompts, draws, shares, classifiers) by method and order.

    An order is a classifier's name (by its contributions), that after LEFT_OUT, or RANDOM.
    """

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield means over prompts and draws, one row (COLUMNS) per method, order, classifier and share (0 to 1)."""
        for (method, order), logits in self.logits.items():
            means, probabilities = logits.mean(axis=(0, 1)), expit(logits).mean(axis=(0, 1))
            for column, name in enumerate(self.classifiers):
                for row, share in enumerate(SHARES):
                    values = (share / 100, round(means[row, column], 4), round(probabilities[row, column], 4))
                    yield dict(zip(COLUMNS, (method, order, name, *values), strict=True))

    def areas(self, spread: Mapping[str, float]) -> dict[str, Any]:
        """Return the area between the curve of each order and that of random orders, by method, order and classifier.

        It is positive where the order does better than random: below random in deletion, above it in insertion. `area`
        is that of the logit in standard deviations, so that classifiers can be compared, and `probability` that of the
        probability: means over prompts, each with the standard error of that mean.

        Args:
            spread: standard deviation of each classifier's logit over prompts.
        """
        found: dict[str, Any] = {}
        for (method, order), logits in self.logits.items():
            if order == RANDOM:
                continue
            sign = 1 if method == "insertion" else -1
            random = self.logits[method, RANDOM]
            for column, name in enumerate(self.classifiers):
                figures: dict[str, float] = {}
                for what, scale, unit in (("area", np.asarray, spread[name]), ("probability", expit, 1.0)):
                    own, chance = (scale(each[..., column]).mean(axis=1) for each in (logits, random))
                    areas = sign * np.trapezoid(own - chance, np.array(SHARES) / 100, axis=1) / unit
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
    """Remove tokens from every prompt in several orders, and score what is left.

    The orders are those of each classifier's contributions, of what its logit loses without each token alone, and
    random ones.

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
    run = partial(_states, model, point=point, norm_limit=norm_limit, batch_tokens=batch_tokens, dtype=dtype)
    rng = np.random.default_rng(seed)
    chosen: dict[int, np.ndarray] = {}  # by prompt, the positions that go
    orders: dict[str, list[list[np.ndarray]]] = {name: [] for name in (*classifiers, RANDOM)}
    first_pass = run(tokens, doing="attributing") if tokens.ids else ()
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
    of_chosen, goes_of = tokens.some(list(chosen)), list(chosen.values())

    def logits(inputs: Sequence[_Input], doing: str) -> np.ndarray:
        """Return the logits (inputs, classifiers)."""
        states = run(_inputs(of_chosen, goes_of, inputs), doing=doing)
        return np.array([[classifier.logit(each) for classifier in classifiers.values()] for _, each in states])

    by_leaving_out = _leaving_out(goes_of, partial(logits, doing="leaving out tokens"))
    orders |= {LEFT_OUT + name: order for name, order in zip(classifiers, by_leaving_out, strict=True)}
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
    found = logits(list(numbers), "removing tokens")
    return Curves(list(classifiers), {key: found[places] for key, places in wanted.items()})


def _leaving_out(
    goes_of: Sequence[np.ndarray], logits: Callable[[Sequence[_Input]], np.ndarray]
) -> Iterator[list[list[np.ndarray]]]:
    """Yield for each classifier the order of each prompt's positions by what its logit loses without them.

    Args:
        goes_of: the positions in each prompt that may go, which are left out one by one, or piece by piece.
        logits: returns the logits (inputs, classifiers) of such inputs.
    """
    pieces = [np.array_split(goes, min(len(goes), PIECES)) for goes in goes_of]
    inputs = [
        (prompt, tuple(np.setdiff1d(goes_of[prompt], piece).tolist()))
        for prompt, each in enumerate(pieces)
        for piece in each
    ]
    left = np.split(logits(inputs), np.cumsum([len(each) for each in pieces])[:-1])
    for column in range(left[0].shape[1]):
        lowest_first = [np.argsort(each[:, column], kind="stable") for each in left]
        yield [
            [np.concatenate([each[piece] for piece in order])] for each, order in zip(pieces, lowest_first, strict=True)
        ]


def _states(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    *,
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
