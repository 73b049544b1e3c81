"""The table of scores: what arms leave to the judge, and nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core.errors import FileError, UserError
from pipeline.core.files import read_table
from pipeline.judging.arm import ArmId
from pipeline.prompts.table import Prompts

_NAME = pa.dictionary(pa.int32(), pa.string())  # each name is in memory once, however many rows have it
SCORES = pa.schema(
    [
        ("arm", _NAME),  # ArmId.name
        ("points", pa.list_(_NAME)),  # whose activations it reads; empty for texts alone
        ("variant", _NAME),  # null without an SAE
        ("k", pa.int32()),  # null: all features
        ("setting", _NAME),
        ("draw", pa.int64()),
        ("seed", pa.int64()),
        ("split", _NAME),  # test or benign
        ("prompt_id", _NAME),
        ("score", pa.float32()),  # probability of the target
    ]
)
_BLOCK = SCORES.names[:7]  # the columns that are the same in all rows of one arm in one task


class TaskId(NamedTuple):
    """What an arm was trained on: a setting, which of its draws, and the seed of the split."""

    setting: str
    draw: int
    seed: int


Scores = dict[TaskId, dict[ArmId, np.ndarray]]  # of the scored prompts (n), float64


def scored_rows(prompts: Prompts) -> np.ndarray:
    """The rows of the prompts that arms score, in the order of their scores: those of test, then the harmless ones."""
    return np.flatnonzero(~prompts.train)


def scores_table(prompts: Prompts, blocks: Sequence[tuple[TaskId, ArmId, np.ndarray]]) -> pa.Table:
    """The table SCORES of arms in tasks, each with its scores (n) of the scored prompts."""
    rows = scored_rows(prompts)
    of_block = np.repeat(np.arange(len(blocks)), len(rows))
    of_prompt = np.tile(np.arange(len(rows)), len(blocks))
    values = [(arm.name, arm.points, arm.variant, arm.k, *task) for task, arm, _ in blocks]
    columns = zip(*values, strict=True) if values else ([] for _ in _BLOCK)
    constant = [
        pa.array(column, SCORES.field(name).type).take(of_block) for name, column in zip(_BLOCK, columns, strict=True)
    ]
    ids = pa.array([prompts.ids[row] for row in rows], _NAME).take(of_prompt)
    sides = pa.array(prompts.sides[rows].tolist(), _NAME).take(of_prompt)
    scores = np.concatenate([each for *_, each in blocks] or [np.zeros(0)]).astype(np.float32)
    return pa.table([*constant, sides, ids, scores], schema=SCORES)


def read_scores(
    files: Sequence[Path],
    prompts_by_seed: Mapping[int, Prompts],
    wanted: Callable[[TaskId, ArmId], bool] = lambda task, arm: True,
) -> Scores:
    """The wanted scores of all arms in these files, in the order of the scored prompts.

    Raises: UserError when an arm's scores are not of just these prompts, or are there twice.
    """
    ids = {seed: [prompts.ids[row] for row in scored_rows(prompts)] for seed, prompts in prompts_by_seed.items()}
    found: Scores = {}
    for file in files:
        table = read_table(file)
        if not set(SCORES.names) <= set(table.column_names):
            raise FileError(f"{file} lacks columns of a table of scores", "score again")
        prompt_ids, scores = table["prompt_id"].combine_chunks(), table["score"].to_numpy()
        code_of = {prompt_id: code for code, prompt_id in enumerate(prompt_ids.dictionary.to_pylist())}
        codes = prompt_ids.indices.to_numpy()
        wanted_codes = {seed: np.array([code_of.get(each, -1) for each in own]) for seed, own in ids.items()}
        for task, arm, rows in _blocks(table):
            if not wanted(task, arm):
                continue
            if task.seed not in ids or not np.array_equal(codes[rows], wanted_codes[task.seed]):
                raise UserError(f"the scores of {arm} are not of the test prompts: run 'dvc repro' to score them again")
            of_task = found.setdefault(task, {})
            if arm in of_task:
                raise UserError(f"the scores of {arm} in {task.setting} are there twice, the second time in {file}")
            of_task[arm] = scores[rows].astype(np.float64)
    return found


def _blocks(table: pa.Table) -> Iterator[tuple[TaskId, ArmId, slice]]:
    """The rows of each arm in each task, which are consecutive."""
    starts = _starts(table)
    constant = table.select(_BLOCK).take(starts).to_pylist()
    for row, start, end in zip(constant, starts, [*starts[1:], len(table)], strict=True):
        arm = ArmId(row["arm"], tuple(row["points"]), row["variant"], row["k"])
        yield TaskId(row["setting"], row["draw"], row["seed"]), arm, slice(start, end)


def _starts(table: pa.Table) -> np.ndarray:
    """The rows at which the next arm or task begins."""
    begins = np.zeros(len(table), dtype=bool)
    begins[:1] = True
    for name in _BLOCK:
        for codes in _codes(table[name].combine_chunks()):
            begins[1:] |= codes[1:] != codes[:-1]
    return np.flatnonzero(begins)


def _codes(column: pa.Array) -> Iterator[np.ndarray]:
    """Numbers (rows) that are equal where the column is: one array, or of lists one for each place in them."""
    if not pa.types.is_list(column.type):
        yield column.dictionary_encode().indices.fill_null(-1).to_numpy()
        return
    starts, ends = column.offsets[:-1].to_numpy(), column.offsets[1:].to_numpy()
    (values,) = _codes(column.values)
    for place in range(max(ends - starts, default=0)):
        codes = np.full(len(column), -1)
        there = starts + place < ends
        codes[there] = values[starts[there] + place]
        yield codes
