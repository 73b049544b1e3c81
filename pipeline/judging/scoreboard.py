"""The scores of all arms beside the prompts that they are of: what every comparison starts from."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from scipy.special import expit

from pipeline.core.errors import UserError
from pipeline.judging.arm import ArmId
from pipeline.judging.calibration import platt
from pipeline.judging.judge import Judge
from pipeline.judging.scores import OutOfFold, Scores, TaskId
from pipeline.judging.settings import FULL, Balancing, balanced
from pipeline.prompts.table import Prompts


class Scoreboard:
    """The scores of all arms in all settings, with several seeds.

    Results are of the first seed; the others say how far apart seeds are. A position is that of a prompt among the
    scores of an arm, which are of the test prompts and then of the harmless ones.

    prompts: of the first seed.
    test, balanced: the positions of its test prompts, and of the balanced ones among them.
    judge: of the balanced test prompts.
    arms: the scores in the balanced setting.
    """

    def __init__(
        self,
        scores: Scores,
        out_of_fold: Mapping[TaskId, OutOfFold],
        prompts_by_seed: dict[int, Prompts],
        *,
        balancing: Balancing,
        resamples: int,
        confidence: float,
    ) -> None:
        """Put scores and prompts together.

        Args:
            out_of_fold: what arms say in the balanced setting, with the first seed, of their train prompts.
            prompts_by_seed: the main seed first.
            balancing, resamples, confidence: see `pipeline.judging.settings.balanced` and Judge.

        Raises: UserError when there are no scores of a seed.
        """
        for seed in prompts_by_seed:
            if TaskId(FULL, 0, seed) not in scores:
                raise UserError(f"there are no scores of seed {seed}: run 'dvc repro' to make them")
        self.scores = scores
        self.prompts_by_seed = prompts_by_seed
        self.seed, self.prompts = next(iter(prompts_by_seed.items()))
        self._balancing = balancing
        self._resamples, self._confidence = resamples, confidence
        main = TaskId(FULL, 0, self.seed)
        self.arms = scores[main]
        self._out_of_fold = out_of_fold.get(main)
        self.test = np.arange(len(self.test_rows(self.seed)))
        self.balanced = self.balanced_positions(self.seed)
        self.judge = self.judge_of(self.balanced)

    def test_rows(self, seed: int) -> np.ndarray:
        """The rows of the test prompts among all prompts of a seed; harmless ones come after them."""
        return np.flatnonzero(self.prompts_by_seed[seed].test)

    def balanced_positions(self, seed: int) -> np.ndarray:
        """The positions of the balanced test prompts of a seed."""
        return np.searchsorted(self.test_rows(seed), self.balanced_rows(seed, "test"))

    def balanced_rows(self, seed: int, side: Literal["train", "test"]) -> np.ndarray:
        """The rows of the balanced prompts of a side among all prompts of a seed."""
        return balanced(self.prompts_by_seed[seed], side, self._balancing)

    def judge_of(self, positions: np.ndarray) -> Judge:
        """A judge of some of the first seed's test prompts."""
        rows = self.test_rows(self.seed)[positions]
        return Judge(
            self.prompts.labels[rows],
            self.prompts.groups[rows],
            resamples=self._resamples,
            confidence=self._confidence,
            seed=self.seed,
        )

    def whole_arms(self) -> Iterator[tuple[ArmId, np.ndarray]]:
        """The arms that may use all features, with their scores in the balanced setting."""
        return ((arm, scores) for arm, scores in self.arms.items() if arm.k is None)

    def calibrated(self, arm: ArmId, prior_log_odds: float = 0.0) -> np.ndarray:
        """The scores of an arm in the balanced setting, calibrated by its out-of-fold scores.

        prior_log_odds: added to their log odds; those of a target, where targets are not as many as others.

        Raises: UserError when there are no out-of-fold scores of the arm.
        """
        if self._out_of_fold is None or arm not in self._out_of_fold.logits:
            raise UserError(f"there are no out-of-fold logits of {arm}: run 'dvc repro' to fit it again")
        labels = self.prompts.labels[self._out_of_fold.rows]
        return platt(expit(self._out_of_fold.logits[arm]), labels)(self.arms[arm], prior_log_odds)

    def draws(self, setting: str) -> list[dict[ArmId, np.ndarray]]:
        """The scores in each draw of a setting."""
        return [arms for task, arms in self.scores.items() if (task.setting, task.seed) == (setting, self.seed)]

    def other_settings(self) -> list[str]:
        """All settings but the balanced one, by name."""
        return sorted({task.setting for task in self.scores if task.seed == self.seed} - {FULL})
