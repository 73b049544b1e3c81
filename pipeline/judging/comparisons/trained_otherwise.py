"""Arms trained in other settings than the balanced one, and with other seeds."""

from typing import Any

import numpy as np

from pipeline.judging.arm import ArmId, nested
from pipeline.judging.metrics import value_of
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import TaskId
from pipeline.judging.settings import FULL, NOISE, SCARCE, WITHOUT


def in_setting(board: Scoreboard, setting: str) -> dict[str, Any]:
    """AUROC of the arms in a setting: of one that is not drawn with an interval, else over draws (see `over_draws`).

    On the balanced test prompts; on those of the source, where the arms were trained without one.
    """
    draws = board.draws(setting)
    positions, judge = board.balanced, board.judge
    if setting.startswith(WITHOUT):
        sources = board.prompts.sources[board.test_rows(board.seed)]
        positions = np.flatnonzero(sources == setting.removeprefix(WITHOUT))
        judge = board.judge_of(positions)

    def of_one(arm: ArmId) -> dict[str, float]:
        if len(draws) == 1 and not setting.startswith((SCARCE, NOISE)):
            return judge.metrics(draws[0][arm][positions], ["auroc"], ["auroc"])
        return over_draws([judge.value("auroc", arms[arm][positions]) for arms in draws], "auroc")

    return nested((arm, of_one(arm)) for arm in draws[0])


def with_seeds(board: Scoreboard) -> dict[str, Any]:
    """AUROC of the arms on all features over all seeds, each on its own balanced test prompts."""
    aurocs: dict[ArmId, list[float]] = {arm: [] for arm, _ in board.whole_arms()}
    for seed, prompts in board.prompts_by_seed.items():
        positions = board.balanced_positions(seed)
        labels = prompts.labels[board.test_rows(seed)[positions]]
        scores = board.scores[TaskId(FULL, 0, seed)]
        for arm, values in aurocs.items():
            values.append(value_of("auroc", labels, scores[arm][positions]))
    return nested((arm, over_draws(values, "auroc_mean")) for arm, values in aurocs.items())


def over_draws(aurocs: list[float], name: str) -> dict[str, float]:
    """Their mean, by this name, their standard deviation, NaN for one, and how many there are."""
    spread = float(np.std(aurocs, ddof=1)) if len(aurocs) > 1 else float("nan")
    return {name: float(np.mean(aurocs)), "auroc_std": spread, "draws": len(aurocs)}
