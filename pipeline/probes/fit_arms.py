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
from pipeline.judging.settings import FULL, balanced
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.base import AnyArm, Scored
from pipeline.probes.fit import Fitting, folds_of
from pipeline.probes.processes import in_processes
from pipeline.probes.task import Task, tasks
from pipeline.prompts.table import Prompts

SCORES_SCHEMA = pa.schema(
    [
        ("setting", pa.string()),
        ("draw", pa.int64()),
        ("point", pa.string()),  # 'text' for arms that read no activations
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("split", pa.string()),  # test or benign
        ("prompt_id", pa.string()),
        ("score", pa.float32()),  # probability of the target
    ]
)


def fit_arms(
    arms: Sequence[AnyArm],
    views: Callable[[Prompts], Any],
    params: ProbeParams,
    prompts_by_seed: Mapping[int, Prompts],
    *,
    point: str,
    folder: Path,
    suffix: str = "",
) -> pa.Table:
    """Fit arms in every setting, and in the balanced one with every seed; return their scores.

    They are of the test and the harmless prompts, in the order of the seed's Prompts.

    Args:
        prompts_by_seed: the main seed first.
        views: makes of the prompts what the arms' features are made of.
        folder: where the classifiers of the balanced setting and the first seed are written, one folder an arm.
        suffix: put after the arms' names in the scores.
    """
    tables, written = [], set()
    first = next(iter(prompts_by_seed))
    for seed, prompts in prompts_by_seed.items():
        balanced(prompts, "test", params.negatives, params.min_class_prompts)  # the judge would refuse, hours later
        every = _tasks(prompts, params)
        if seed != first:  # how far seeds are apart is only asked of the balanced setting
            every = every[:1]
        prompts, every = _needed(prompts, every)
        scored_rows = np.flatnonzero(~prompts.train)
        ids = pa.array([prompts.ids[row] for row in scored_rows])
        sides = pa.array(prompts.sides[scored_rows])
        for (setting, draw, arm), scored in _all(arms, views(prompts), prompts, every, params, point):
            if setting == FULL and seed == first:
                _write_classifier(folder / arm, scored.choices, scored.weights)
                written.add(folder / arm / "probe.json")
            constants = [pa.repeat(value, len(ids)) for value in (setting, draw, point, arm + suffix, seed)]
            columns = [*constants, sides, ids, pa.array(scored.probabilities[scored_rows])]
            tables.append(pa.table(columns, names=SCORES_SCHEMA.names).cast(SCORES_SCHEMA))
    for left in set(folder.glob("*/probe.json")) - written:  # of an SAE with more latents, say
        shutil.rmtree(left.parent)
    return pa.concat_tables(tables)


def _tasks(prompts: Prompts, params: ProbeParams) -> list[Task]:
    return list(
        tasks(
            prompts,
            params.negatives,
            params.min_class_prompts,
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
    arms: Sequence[AnyArm], views: Any, prompts: Prompts, every: list[Task], params: ProbeParams, point: str
) -> Iterator[tuple[tuple[str, int, str], Scored]]:
    """Every arm in every setting, as many at a time as there are processors; in the same order in any case."""
    how = Fitting(params.c_grid, params.folds, prompts.seed)
    splits = in_processes(lambda number: folds_of(every[number], prompts.groups, how), len(every))
    split = [replace(task, splits=made) for task, made in zip(every, splits, strict=True)]
    jobs = [(task, arm) for task in split for arm in arms if arm.is_for(task)]

    def job(number: int) -> list[tuple[str, Scored]]:
        task, arm = jobs[number]
        return list(arm.scores(views, task, prompts.groups, how))

    with progress(len(jobs), f"probes at {point}", "fit") as bar:
        for (task, arm), scored in zip(jobs, in_processes(job, len(jobs)), strict=True):
            bar.set_postfix(arm=arm.name, setting=task.setting, refresh=False)
            bar.update()
            for name, each in scored:
                yield (task.setting, task.draw, name), each


def _write_classifier(folder: Path, choices: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
    """Write `probe.json` (choices) and, where there are weights, `probe.safetensors` (float64)."""
    if weights:
        with replacing(folder / "probe.safetensors") as temporary:
            save_file({name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}, temporary)
    write_json(folder / "probe.json", dict(choices))
