"""Test prompts that are hard by something that no arm decides: which train prompts use the same words.

Prompts that one arm gets wrong would not do: all others look better on them.
"""

from typing import Any

import numpy as np

from pipeline.judging.arm import nested
from pipeline.judging.metrics import value_of
from pipeline.judging.scoreboard import Scoreboard
from pipeline.prompts.items import number_words, word_sets, words_of

HARD = 0.25  # share of the balanced test prompts of each class that count as hard
NEIGHBOURS = 5  # train prompts of each class that a test prompt is compared with
PARTS = 5  # of the balanced test prompts, by similarity to train
OF_TEMPLATE = 5  # prompts of each class that a template must have among the test prompts


def hard(board: Scoreboard) -> dict[str, Any]:
    """AUROC on the balanced test prompts whose words speak for the other class.

    Of each class these are the prompts with the smallest margin: mean similarity of words to the nearest train prompts
    of their own class, minus that to the nearest ones of the other class. Nearest hits and misses as in Gilad-Bachrach
    et al. 2004, "Margin based feature selection".
    """
    margins, labels = _margins(board), board.judge.labels
    chosen = np.zeros(len(labels), dtype=bool)
    for label in (True, False):
        rows = np.flatnonzero(labels == label)
        chosen[rows[np.argsort(margins[rows], kind="stable")[: round(HARD * len(rows))]]] = True
    return _aurocs(board, board.balanced[chosen])


def _margins(board: Scoreboard) -> np.ndarray:
    """The margin of each balanced test prompt."""
    prompts = board.prompts
    test, train = board.test_rows(board.seed)[board.balanced], np.flatnonzero(prompts.train)
    sets = word_sets(*number_words([words_of(prompts.texts[row]) for row in [*test, *train]]))
    columns = len(test) + np.argsort(~prompts.labels[train], kind="stable")  # targets come first
    targets = int(prompts.labels[train].sum())
    to_targets, to_others = [], []
    for similarities in sets.similarities(np.arange(len(test)), columns):
        to_targets.append(_mean_of_largest(similarities[:, :targets]))
        to_others.append(_mean_of_largest(similarities[:, targets:]))
    difference = np.concatenate(to_targets) - np.concatenate(to_others)
    return np.where(prompts.labels[test], difference, -difference)


def _mean_of_largest(values: np.ndarray) -> np.ndarray:
    count = min(NEIGHBOURS, values.shape[1])
    return np.asarray(np.partition(values, -count, axis=1)[:, -count:].mean(axis=1))


def by_similarity(board: Scoreboard) -> dict[str, Any]:
    """AUROC on each fifth of the balanced test prompts by similarity to the nearest train prompt, least similar first.

    Of each: the least and the largest similarity, and the median. A fifth without both classes is left out.
    """
    nearest = board.prompts.nearest[board.test_rows(board.seed)[board.balanced]]
    bounds = np.quantile(nearest, np.linspace(0, 1, PARTS + 1)[1:-1])
    part = np.searchsorted(bounds, nearest)
    found: dict[str, Any] = {}
    for number in range(PARTS):
        here = part == number
        if len(set(board.judge.labels[here])) == 2:
            low, median, high = (float(np.quantile(nearest[here], at)) for at in (0, 0.5, 1))
            similarity = {"low": low, "median": median, "high": high}
            found[str(number + 1)] = {"similarity": similarity} | _aurocs(board, board.balanced[here])
    return found


def _aurocs(board: Scoreboard, positions: np.ndarray) -> dict[str, Any]:
    """How many prompts these are, and if there are both classes, AUROC of the arms on them."""
    labels = board.prompts.labels[board.test_rows(board.seed)[positions]]
    counts = {"prompts": len(positions), "targets": int(labels.sum())}
    if len(set(labels)) < 2:
        return counts
    judge = board.judge_of(positions)
    return counts | nested(
        (arm, judge.metrics(scores[positions], ["auroc"], ["auroc"])) for arm, scores in board.whole_arms()
    )


def within_templates(board: Scoreboard) -> dict[str, Any]:
    """AUROC among prompts of the same template: only their payloads can tell them apart.

    It is the mean over the templates with enough test prompts of both classes, with its standard deviation over them.
    """
    rows = board.test_rows(board.seed)
    templates, labels = board.prompts.templates[rows], board.prompts.labels[rows]
    positions = [np.flatnonzero(templates == name) for name in np.unique(templates[templates != ""])]
    positions = [at for at in positions if min(labels[at].sum(), (~labels[at]).sum()) >= OF_TEMPLATE]
    together = np.concatenate([np.zeros(0, dtype=np.int64), *positions])
    counts = {"templates": len(positions), "prompts": len(together), "targets": int(labels[together].sum())}
    if not positions:
        return counts

    def of_one(scores: np.ndarray) -> dict[str, float]:
        aurocs = [value_of("auroc", labels[at], scores[at]) for at in positions]
        spread = float(np.std(aurocs, ddof=1)) if len(aurocs) > 1 else float("nan")
        return {"auroc": float(np.mean(aurocs)), "auroc_std": spread}

    return counts | nested((arm, of_one(scores)) for arm, scores in board.whole_arms())
