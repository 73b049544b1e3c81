"""Scores of made-up arms for tests of the judge."""

import numpy as np

from pipeline.judging.arm import ArmId
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import OutOfFold, TaskId
from pipeline.judging.settings import FULL, Balancing
from pipeline.prompts.table import Prompts


def board_of(
    scores: dict[ArmId, np.ndarray],
    labels: np.ndarray,
    *,
    texts: list[str] | None = None,
    templates: np.ndarray | None = None,
    nearest: np.ndarray | None = None,
    train_labels: np.ndarray | None = None,
    out_of_fold: dict[ArmId, np.ndarray] | None = None,
) -> Scoreboard:
    """Test prompts with these scores after as many train prompts as there are train labels, 600 if nothing is said.

    out_of_fold: log odds of the train prompts.
    """
    train = np.arange(600) % 2 == 0 if train_labels is None else train_labels
    every = np.concatenate([train, labels])
    names = [str(number) for number in range(len(every))]
    sides = np.array(["train"] * len(train) + ["test"] * len(labels))
    whole = np.full(len(train), "")
    prompts = Prompts(
        names,
        texts or names,
        np.array(names),
        every.astype(int),
        np.array(names),
        sides,
        1,
        0,
        np.concatenate([whole, np.full(len(labels), "") if templates is None else templates]),
        np.concatenate([np.full(len(train), np.nan), np.zeros(len(labels)) if nearest is None else nearest]),
    )
    of_train = OutOfFold(np.arange(len(train)), out_of_fold or {})
    return Scoreboard(
        {TaskId(FULL, 0, 0): scores},
        {TaskId(FULL, 0, 0): of_train},
        {0: prompts},
        balancing=Balancing("natural", 2),
        resamples=50,
        confidence=0.95,
    )
