"""What arms leave behind: their scores of test prompts, and their classifiers."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from pipeline.core.files import replacing, write_json
from pipeline.core.progress import progress
from pipeline.judging.arm import ArmId, points_key
from pipeline.judging.scores import TaskId, scored_rows, scores_table
from pipeline.judging.settings import FULL, Balancing, balanced
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.base import AnyArm, Scored
from pipeline.probes.fit import Fitting, folds_of
from pipeline.probes.processes import in_processes
from pipeline.probes.task import Task, tasks
from pipeline.prompts.table import Prompts


def fit_arms(
    arms: Sequence[AnyArm],
    views: Callable[[Prompts], Any],
    params: ProbeParams,
    prompts_by_seed: Mapping[int, Prompts],
    *,
    folder: Path,
    points: Sequence[str] = (),
    variant: str | None = None,
) -> pa.Table:
    """Fit arms in every setting, and in the balanced one with every seed; return their scores, as the table SCORES.

    In the balanced setting their out-of-fold logits of the train prompts are in it too.

    Args:
        views: makes of the prompts what the arms' features are made of.
        prompts_by_seed: the main seed first.
        folder: where the classifiers of the balanced setting and the first seed are written, one folder an arm.
        points, variant: what the arms read: the activations at these points, and the SAE of this variant.
    """
    tables, written = [], set()
    first = next(iter(prompts_by_seed))
    for seed, prompts in prompts_by_seed.items():
        balanced(prompts, "test", Balancing.of(params))  # the judge would refuse, hours later
        every = _tasks(prompts, params)
        if seed != first:  # how far seeds are apart is only asked of the balanced setting
            every = every[:1]
        every = [task for task in every if any(arm.is_for(task) for arm in arms)]
        prompts, every = _needed(prompts, every)
        rows = scored_rows(prompts)
        blocks, out_of_fold = [], []
        of_arms = _all(arms, views(prompts), prompts, every, params, doing=f"probes at {points_key(points)}")
        for task, name, fitted in of_arms:
            arm = ArmId(name, tuple(points), variant, fitted.k)
            if task.setting == FULL and seed == first:
                _write_classifier(folder / arm.classifier, fitted.choices, fitted.weights)
                written.add(folder / arm.classifier / "probe.json")
            task_id = TaskId(task.setting, task.draw, seed)
            blocks.append((task_id, arm, fitted.probabilities[rows]))
            if task.setting == FULL and fitted.out_of_fold is not None:
                out_of_fold.append((task_id, arm, task.train, fitted.out_of_fold))
        tables.append(scores_table(prompts, blocks, out_of_fold))
    for left in set(folder.glob("*/probe.json")) - written:  # of an SAE with more latents, say
        shutil.rmtree(left.parent)
    return pa.concat_tables(tables).unify_dictionaries()


def _tasks(prompts: Prompts, params: ProbeParams) -> list[Task]:
    return list(
        tasks(
            prompts,
            Balancing.of(params),
            scarce=params.scarce,
            draws=params.draws,
            noise=params.noise,
            folds=params.folds,
        )
    )


def _needed(prompts: Prompts, every: list[Task]) -> tuple[Prompts, list[Task]]:
    """Without the train prompts that no task learns from."""
    kept = ~prompts.train
    for task in every:
        kept[task.train] = True
    number = np.cumsum(kept) - 1
    return prompts.some(np.flatnonzero(kept)), [replace(task, train=number[task.train]) for task in every]


def _all(
    arms: Sequence[AnyArm], views: Any, prompts: Prompts, every: list[Task], params: ProbeParams, doing: str
) -> Iterator[tuple[Task, str, Scored]]:
    """Every arm in every setting, as many at a time as there are processors; in the same order in any case."""
    fitting = Fitting(params.c_grid, params.folds, prompts.seed)
    splits = in_processes(lambda number: folds_of(every[number], prompts.groups, fitting), len(every))
    split = [replace(task, splits=made) for task, made in zip(every, splits, strict=True)]
    jobs = [(task, arm) for task in split for arm in arms if arm.is_for(task)]

    def job(number: int) -> list[Scored]:
        task, arm = jobs[number]
        return list(arm.scores(views, task, prompts.groups, fitting))

    with progress(len(jobs), doing, "fit") as bar:
        for (task, arm), found in zip(jobs, in_processes(job, len(jobs)), strict=True):
            bar.set_postfix(arm=arm.name, setting=task.setting, refresh=False)
            bar.update()
            for fitted in found:
                yield task, arm.name, fitted


def _write_classifier(folder: Path, choices: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
    """Write `probe.json` (choices) and, where there are weights, `probe.safetensors` (float64)."""
    if weights:
        with replacing(folder / "probe.safetensors") as temporary:
            save_file({name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}, temporary)
    write_json(folder / "probe.json", dict(choices))
