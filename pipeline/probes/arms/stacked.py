"""Arms that put others together: a logistic regression on the standardised logits of their parts.

It learns from the parts' out-of-fold logits of the train prompts, so that a part that has learned its prompts by heart
is trusted no more than it deserves (stacked generalisation: Wolpert 1992; with logits of this kind: Van der Laan et al.
2007, "Super Learner"). What it then says of test prompts is made of what the parts say of them.

Its own cross-validation has the same folds. The out-of-fold logits inside a fold are of fits that have seen the labels
outside it; with a handful of parts that is too little to show.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

from pipeline.core.errors import UserError
from pipeline.judging.arm import ArmId
from pipeline.judging.scores import ByArm, TaskId, read_out_of_fold, read_scores, scored_rows
from pipeline.judging.settings import FULL
from pipeline.probes.arms.base import Arm
from pipeline.probes.models import Model
from pipeline.prompts.table import Prompts

WORDS, DENSE, SAE = "tfidf", "dense", "sae"
STACKS = {
    "words-and-dense": (WORDS, DENSE),
    "words-and-sae": (WORDS, SAE),
    "words-dense-and-sae": (WORDS, DENSE, SAE),
}
Logits = Mapping[ArmId, np.ndarray]  # (N): of each prompt that was learned from, out of fold, and that was scored


def stacks(points: Sequence[str], variant: str | None) -> list[Arm]:
    """The arms at one point or on several together: those with an SAE of this variant, or, for None, without any."""
    return [
        _arm(name, [part for kind in kinds for part in _parts(kind, points, variant)])
        for name, kinds in STACKS.items()
        if (SAE in kinds) == (variant is not None)
    ]


def _parts(kind: str, points: Sequence[str], variant: str | None) -> list[ArmId]:
    if kind == WORDS:
        return [ArmId(kind)]
    return [ArmId(kind, (point,), variant if kind == SAE else None) for point in points]


def _arm(name: str, parts: Sequence[ArmId]) -> Arm:
    of_parts = [{"arm": part.name, "points": list(part.points), "variant": part.variant} for part in parts]
    return Arm(
        name,
        partial(_features, parts),
        Model(StandardScaler),
        describe=lambda logits, prepare: {"parts": of_parts},
    )


def _features(parts: Sequence[ArmId], logits: Logits) -> dict[str, np.ndarray]:
    return {"none": np.stack([logits[part] for part in parts], axis=1)}


def read_logits(files: Sequence[Path], prompts: Prompts) -> dict[ArmId, np.ndarray]:
    """Read the logits of the arms that may be parts, in the balanced setting.

    NaN: train prompts that no arm learned from.

    Raises: UserError when an arm has no out-of-fold logits.
    """
    task = TaskId(FULL, 0, prompts.seed)
    seed = {prompts.seed: prompts}
    wanted = partial(_is_part, task)
    scored = read_scores(files, seed, wanted, "logit").get(task, {})
    learned = read_out_of_fold(files, seed, wanted)
    logits = ByArm()
    for arm, of_scored in scored.items():
        if task not in learned or arm not in learned[task].logits:
            raise UserError(f"there are no out-of-fold logits of {arm}: run 'dvc repro' to fit it again")
        logits[arm] = np.full(len(prompts.ids), np.nan)
        logits[arm][learned[task].rows] = learned[task].logits[arm]
        logits[arm][scored_rows(prompts)] = of_scored
    return logits


def _is_part(wanted: TaskId, task: TaskId, arm: ArmId) -> bool:
    return task == wanted and arm.k is None and arm.name in (WORDS, DENSE, SAE)
