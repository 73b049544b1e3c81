"""What an arm is: the features that it takes from prompts, and the classifier that is fitted on them."""

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
FEW = (16,)  # the size that is looked at in every setting


@dataclass(frozen=True)
class Scored:
    """A fitted arm."""

    probabilities: np.ndarray
    """(N): the probability of the target for all prompts."""
    choices: dict[str, Any]
    """What cross-validation chose."""
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    """The classifier's weights, as arrays by name."""


class AnyArm(Protocol):
    """What a stage fits: an `Arm`, or a class of its own with the same methods."""

    @property
    def name(self) -> str: ...

    def is_for(self, task: Task) -> bool:
        """Return whether the arm is fitted in the task's setting."""

    def scores(self, views: Any, task: Task, groups: np.ndarray, how: Fitting) -> Iterator[tuple[str, Scored]]:
        """Fit on the task; yield the arm, or several by size, with their names.

        Args:
            views: what the stage computes once for all its arms.
            groups: near-duplicate group of each prompt (N).
            how: settings of the fit.
        """


@dataclass(frozen=True)
class Arm:
    """One way to detect the target. `views` stands for what the stage computes once for all its arms."""

    name: str
    """Its name; with sizes, it becomes several arms, such as NAME-k8."""
    features: Callable[[Any], Mapping[str, Matrix]]
    """Makes features of all prompts from `views`, by pooling. A prompt's features must not depend on other prompts."""
    model: Model | Callable[[Any], Model]
    """The model that is fitted in the balanced setting, or a function that makes it from `views`."""
    elsewhere: Model | Callable[[Any], Model] | None = None
    """The model that is fitted in the other settings; None: the arm is fitted in the balanced setting alone."""
    control: bool = False
    """Whether the arm is also fitted on permuted labels, where it must be at chance."""
    stable: int = 0
    """The size whose choice of features is repeated on resampled prompts, to see how stable it is; 0: none."""
    describe: Callable[[Any, Any], dict[str, Any]] | None = None
    """Returns what else to keep, from `views` and the fitted preparation of the features."""

    def is_for(self, task: Task) -> bool:
        if task.setting == SHUFFLED:
            return self.control
        return task.setting == FULL or self.elsewhere is not None

    def scores(self, views: Any, task: Task, groups: np.ndarray, how: Fitting) -> Iterator[tuple[str, Scored]]:
        """Fit on the task; yield the arm, or one per size, with its name."""
        model = self.model if task.setting in (FULL, SHUFFLED) else self.elsewhere
        assert model is not None
        if not isinstance(model, Model):
            model = model(views)
        features = self.features(views)
        for size, chosen in fit(features, model, task, groups, how).items():
            choices = {
                "pooling": chosen.pooling,
                "C": chosen.c,
                "cv_auroc": round(chosen.cv_auroc, 4),
                "train_prompts": len(task.train),
            }
            if self.stable and size == self.stable and task.setting == FULL:
                matrix = features[chosen.pooling][task.train]
                choices["stability"] = stability(matrix, task.labels, groups[task.train], k=size, seed=how.seed)
            if self.describe and task.setting == FULL:
                choices |= self.describe(views, chosen.fitted.prepare)
            probabilities = chosen.fitted.probabilities(features[chosen.pooling])
            yield (
                f"{self.name}-k{size}" if size else self.name,
                Scored(probabilities, choices, chosen.fitted.weights()),
            )
