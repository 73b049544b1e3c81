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


@dataclass(frozen=True)
class Scored:
    """A fitted arm."""

    probabilities: np.ndarray
    """(N): the probability of the target for all prompts."""
    choices: dict[str, Any]
    """What cross-validation chose."""
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    """The classifier's weights, as arrays by name."""
    k: int | None = None
    """How many features it uses; None: all."""
    out_of_fold: np.ndarray | None = None
    """(n): the logit of each training prompt of the task by the fit on the folds that it is not in; None: not known."""


class AnyArm(Protocol):
    """What a stage fits: an `Arm`, or a class of its own with the same methods."""

    @property
    def name(self) -> str: ...

    def is_for(self, task: Task) -> bool:
        """Return whether the arm is fitted in the task's setting."""

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """Fit on the task; yield the arm, once for each k.

        Args:
            views: what the stage computes once for all its arms.
            groups: near-duplicate group of each prompt (N).
            fitting: settings of the fit.
        """


@dataclass(frozen=True)
class Arm:
    """One way to detect the target. `views` stands for what the stage computes once for all its arms."""

    name: str
    """Its name, without point, variant and k."""
    features: Callable[[Any], Mapping[str, Matrix]]
    """Makes features of all prompts from `views`, by pooling. A prompt's features must not depend on other prompts."""
    model: Model | Callable[[Any], Model]
    """The model that is fitted in the balanced setting, or a function that makes it from `views`."""
    in_other_settings: Model | Callable[[Any], Model] | None = None
    """The model that is fitted in the other settings; None: the arm is fitted in the balanced setting alone."""
    control: bool = False
    """Whether the arm is also fitted on permuted labels, where it must be at chance."""
    stable: int | None = None
    """The size whose choice of features is repeated on resampled prompts, to see how stable it is; None: none."""
    describe: Callable[[Any, Any], dict[str, Any]] | None = None
    """Returns what else to keep, from `views` and the fitted preparation of the features."""

    def is_for(self, task: Task) -> bool:
        if task.setting == SHUFFLED:
            return self.control
        return task.setting == FULL or self.in_other_settings is not None

    def scores(self, views: Any, task: Task, groups: np.ndarray, fitting: Fitting) -> Iterator[Scored]:
        """Fit on the task; yield the arm, once for each k."""
        model = self.model if task.setting in (FULL, SHUFFLED) else self.in_other_settings
        assert model is not None
        if not isinstance(model, Model):
            model = model(views)
        features = self.features(views)
        for k, chosen in fit(features, model, task, groups, fitting).items():
            choices = {
                "pooling": chosen.pooling,
                "C": chosen.c,
                "C_tried": list(chosen.c_tried),
                "C_at_edge": chosen.c_at_edge,
                "cv_auroc": round(chosen.cv_auroc, 4),
                "train_prompts": len(task.train),
            }
            if k is not None and k == self.stable and task.setting == FULL:
                matrix = features[chosen.pooling][task.train]
                choices["stability"] = stability(matrix, task.labels, groups[task.train], k=k, seed=fitting.seed)
            if self.describe and task.setting == FULL:
                choices |= self.describe(views, chosen.fitted.prepare)
            probabilities = chosen.fitted.probabilities(features[chosen.pooling])
            yield Scored(probabilities, choices, chosen.fitted.weights(), k, chosen.out_of_fold)
