"""What an arm is: features of prompts, and how a classifier is fitted on them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pipeline.judging.settings import FULL, SHUFFLED
from pipeline.probes.fit import Fitting, fit
from pipeline.probes.models import Matrix, Model
from pipeline.probes.stability import stability
from pipeline.probes.task import Task

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Scored:
    """A fitted arm. probabilities: of the target, for all prompts (N); choices: what cross-validation chose;
    weights: what makes the classifier, as arrays by name; k: how many features it uses, None: all."""

    probabilities: np.ndarray
    choices: dict[str, Any]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    k: int | None = None


class AnyArm(Protocol):
    """What stages fit: `Arm`, or a class of its own."""

    @property
    def name(self) -> str: ...

    def is_for(self, task: Task) -> bool:
        """Whether it is fitted in the task's setting."""

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """The fitted arm, once for each k. views: what the stage hands to all its arms."""


@dataclass(frozen=True)
class Arm:
    """One way to detect the target.

    features: makes of what the stage hands to all its arms the features of all prompts for each pooling; those of a
        prompt must not depend on other prompts.
    model: fitted on them in the balanced setting, or a function that makes it of the same things. With sizes, there
        is one arm for each size k.
    in_other_settings: fitted in the other settings; None: nothing is.
    control: whether it is fitted on permuted labels as well.
    stable: the k whose choice of features is tried on other draws of the prompts; None: none.
    describe: of the same things and the fitted preparation, what else is to be kept.
    """

    name: str
    features: Callable[[Any], Mapping[str, Matrix]]
    model: Model | Callable[[Any], Model]
    in_other_settings: Model | Callable[[Any], Model] | None = None
    control: bool = False
    stable: int | None = None
    describe: Callable[[Any, Any], dict[str, Any]] | None = None

    def is_for(self, task: Task) -> bool:
        if task.setting == SHUFFLED:
            return self.control
        return task.setting == FULL or self.in_other_settings is not None

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """The fitted arm, once for each k."""
        model = self.model if task.setting in (FULL, SHUFFLED) else self.in_other_settings
        assert model is not None
        if not isinstance(model, Model):
            model = model(views)
        features = self.features(views)
        for k, chosen in fit(features, model, task, groups, fitting).items():
            choices = {
                "pooling": chosen.pooling,
                "C": chosen.c,
                "cv_auroc": round(chosen.cv_auroc, 4),
                "train_prompts": len(task.train),
            }
            if k is not None and k == self.stable and task.setting == FULL:
                matrix = features[chosen.pooling][task.train]
                choices["stability"] = stability(matrix, task.labels, groups[task.train], k=k, seed=fitting.seed)
            if self.describe and task.setting == FULL:
                choices |= self.describe(views, chosen.fitted.prepare)
            probabilities = chosen.fitted.probabilities(features[chosen.pooling])
            yield Scored(probabilities, choices, chosen.fitted.weights(), k)
