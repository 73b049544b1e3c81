"""The rows of the arms' plots; `pipeline/report/plots.py` says what they look like."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.judging.arm import of_arm, shown_name
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.settings import NOISE, SCARCE

DRAWN = ("tfidf", "length", "dense", "attention", "sae", "untrained")  # of which curves are drawn
Rows = Iterator[dict[str, Any]]
Results = Mapping[str, Any]  # as in metrics/probes.json


def roc(board: Scoreboard, results: Results) -> Rows:
    return _of_scores(board, board.judge.roc)


def precision_recall(board: Scoreboard, results: Results) -> Rows:
    return _of_scores(board, board.judge.precision_recall)


def reliability(board: Scoreboard, results: Results) -> Rows:
    return _of_scores(board, board.judge.reliability)


def k_frontier(board: Scoreboard, results: Results) -> Rows:
    """Balanced AUROC of the arms on k features, with its interval."""
    for arm, scores in board.arms.items():
        if arm.k is not None:
            found = board.judge.metrics(scores[board.balanced], ["auroc"], ["auroc"])
            values = {name: round(value, 4) for name, value in found.items()}
            yield {"point": arm.points_key, "arm": arm.of_all_features().key, "k": arm.k, **values}


def scarcity(board: Scoreboard, results: Results) -> Rows:
    return _by_number(results, SCARCE, "train_prompts")


def noise(board: Scoreboard, results: Results) -> Rows:
    return _by_number(results, NOISE, "percent_flipped")


def similarity(board: Scoreboard, results: Results) -> Rows:
    """Of the fifths of the balanced test prompts by similarity to train."""
    for found in results["by_similarity"].values():
        for arm, _ in board.whole_arms():
            if arm.name in DRAWN:
                values = {name: round(value, 4) for name, value in of_arm(found, arm).items()}
                yield {"arm": str(arm), "similarity": round(found["similarity"]["median"], 4)} | values


# by plot: the columns of its file, and what makes the rows
CURVES: dict[str, tuple[tuple[str, ...], Callable[[Scoreboard, Results], Rows]]] = {
    "roc": (("arm", "fpr", "tpr"), roc),
    "precision_recall": (("arm", "recall", "precision"), precision_recall),
    "reliability": (("arm", "probability", "share_of_targets", "prompts"), reliability),
    "k_frontier": (("point", "arm", "k", "auroc", "auroc_low", "auroc_high"), k_frontier),
    "similarity": (("arm", "similarity", "auroc", "auroc_low", "auroc_high"), similarity),
    "scarcity": (("arm", "train_prompts", "auroc", "auroc_std"), scarcity),
    "noise": (("arm", "percent_flipped", "auroc", "auroc_std"), noise),
}


def _of_scores(board: Scoreboard, curve: Callable[[np.ndarray], list[dict[str, float]]]) -> Rows:
    for arm, scores in board.whole_arms():
        if arm.name in DRAWN:
            for row in curve(scores[board.balanced]):
                yield {"arm": str(arm)} | row


def _by_number(results: Results, prefix: str, column: str) -> Rows:
    """AUROC in the settings whose name is a prefix and a number, with its standard deviation over draws."""
    numbers = (setting.removeprefix(prefix) for setting in results if setting.startswith(prefix))
    for number in sorted(numbers, key=float):
        for points, by_arm in results[f"{prefix}{number}"].items():
            for key, found in by_arm.items():
                values = {name: round(found[name], 4) for name in ("auroc", "auroc_std")}
                yield {"arm": shown_name(points, key), column: number, **values}
