"""The table of scores: what arms leave to the judge, and nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit, logit

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
        ("split", _NAME),  # test or benign; train: out of fold, by a fit that did not see the prompt
        ("prompt_id", _NAME),
        ("score", pa.float32()),  # probability of the target
        ("logit", pa.float32()),  # its log odds, which do not end where probabilities are 0 or 1
    ]
)
_BLOCK = SCORES.names[:7]  # the columns that are the same in all rows of one arm in one task
_TINY = np.finfo(np.float64).epsneg  # probabilities within it of 0 and 1 have the log odds of those at it


class TaskId(NamedTuple):
    """What an arm was trained on: a setting, which of its draws, and the seed of the split."""

    setting: str
    draw: int
    seed: int


class ByArm(dict[ArmId, np.ndarray]):
    """What is known of each arm. Raise UserError when nothing is."""

    def __missing__(self, arm: ArmId) -> np.ndarray:
        raise UserError(f"there are no scores of {arm}: run 'dvc repro' to score it")


Scores = dict[TaskId, dict[ArmId, np.ndarray]]  # of the scored prompts (n), float64


class OutOfFold(NamedTuple):
    """What arms say in one task of the prompts that they learned from, each by a fit that did not see the prompt."""

    rows: np.ndarray
    """(n): the rows of these prompts."""
    logits: dict[ArmId, np.ndarray]
    """Log odds of the target (n), float64."""


def scored_rows(prompts: Prompts) -> np.ndarray:
    """The rows of the prompts that arms score, in the order of their scores: those of test, then the harmless ones."""
    return np.flatnonzero(~prompts.train)


def scores_table(
    prompts: Prompts,
    blocks: Sequence[tuple[TaskId, ArmId, np.ndarray]],
    out_of_fold: Sequence[tuple[TaskId, ArmId, np.ndarray, np.ndarray]] = (),
) -> pa.Table:
    """The table SCORES of arms in tasks.

    Args:
        blocks: each with its probabilities (n) of the scored prompts.
        out_of_fold: each with rows of train prompts (m), and its out-of-fold logits (m) of these.
    """
    scored = scored_rows(prompts)
    of_whom = [(task, arm) for task, arm, _ in blocks] + [(task, arm) for task, arm, *_ in out_of_fold]
    rows = [scored for _ in blocks] + [own for *_, own, _ in out_of_fold]
    scores = [each for *_, each in blocks] + [expit(each) for *_, each in out_of_fold]
    logits = [_log_odds(each) for *_, each in blocks] + [each for *_, each in out_of_fold]
    of_block = np.repeat(np.arange(len(rows)), np.array([len(own) for own in rows], dtype=np.int64))
    values = [(arm.name, arm.points, arm.variant, arm.k, *task) for task, arm in of_whom]
    columns = zip(*values, strict=True) if values else ([] for _ in _BLOCK)
    constant = [
        pa.array(column, SCORES.field(name).type).take(of_block) for name, column in zip(_BLOCK, columns, strict=True)
    ]
    of_prompt = _joined(rows).astype(np.int64)
    ids, sides = (pa.array(each, _NAME).take(of_prompt) for each in (prompts.ids, prompts.sides.tolist()))
    numbers = (_joined(each).astype(np.float32) for each in (scores, logits))
    return pa.table([*constant, sides, ids, *numbers], schema=SCORES)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(logit(np.clip(np.asarray(probabilities, dtype=np.float64), _TINY, 1 - _TINY)))


def read_scores(
    files: Sequence[Path],
    prompts_by_seed: Mapping[int, Prompts],
    wanted: Callable[[TaskId, ArmId], bool] = lambda task, arm: True,
    column: Literal["score", "logit"] = "score",
) -> Scores:
    """The wanted scores of all arms in these files, in the order of the scored prompts; or their logits.

    Raises: UserError when an arm's scores are not of just these prompts, or are there twice.
    """
    scored = {seed: scored_rows(prompts) for seed, prompts in prompts_by_seed.items()}
    found: Scores = {}
    for block in _read(files, prompts_by_seed, wanted, column, of_train=False):
        if not np.array_equal(block.rows, scored.get(block.task.seed, [])):
            raise UserError(
                f"the scores of {block.arm} are not of the test prompts: run 'dvc repro' to score them again"
            )
        block.add_to(found.setdefault(block.task, ByArm()))
    return found


def read_out_of_fold(
    files: Sequence[Path],
    prompts_by_seed: Mapping[int, Prompts],
    wanted: Callable[[TaskId, ArmId], bool] = lambda task, arm: True,
) -> dict[TaskId, OutOfFold]:
    """The wanted out-of-fold logits of all arms in these files.

    Raises: UserError when they are not of train prompts, not of the same ones in all arms of a task, or there twice.
    """
    found: dict[TaskId, OutOfFold] = {}
    for block in _read(files, prompts_by_seed, wanted, "logit", of_train=True):
        of_task = found.setdefault(block.task, OutOfFold(block.rows, ByArm()))
        known = (block.rows >= 0).all() and prompts_by_seed[block.task.seed].train[block.rows].all()
        if not known or not np.array_equal(block.rows, of_task.rows):
            raise UserError(
                f"the out-of-fold logits of {block.arm} are not of the prompts that arms learn from: run 'dvc repro' "
                "to fit it again"
            )
        block.add_to(of_task.logits)
    return found


class _Block(NamedTuple):
    """What a file has of an arm in a task: rows of the prompts, -1 where they are unknown, and values, float64 (n)."""

    file: Path
    task: TaskId
    arm: ArmId
    rows: np.ndarray
    values: np.ndarray

    def add_to(self, of_task: dict[ArmId, np.ndarray]) -> None:
        if self.arm in of_task:
            raise UserError(
                f"the scores of {self.arm} in {self.task.setting} are there twice, the second time in {self.file}"
            )
        of_task[self.arm] = self.values


def _read(
    files: Sequence[Path],
    prompts_by_seed: Mapping[int, Prompts],
    wanted: Callable[[TaskId, ArmId], bool],
    column: str,
    *,
    of_train: bool,
) -> Iterator[_Block]:
    """The wanted blocks, of train prompts or of all others."""
    row_of = {
        seed: {prompt_id: row for row, prompt_id in enumerate(prompts.ids)} for seed, prompts in prompts_by_seed.items()
    }
    for file in files:
        table = read_table(file)
        if not set(SCORES.names) <= set(table.column_names):
            raise FileError(f"{file} lacks columns of a table of scores", "score again")
        is_train = pc.equal(table["split"].cast(pa.string()), "train")
        table = table.filter(is_train if of_train else pc.invert(is_train))
        if table.schema.field("prompt_id").type != _NAME or table["prompt_id"].null_count:
            raise FileError(f"{file} has prompt_id in another form than a table of scores", "score again")
        prompt_ids, values = table["prompt_id"].combine_chunks(), table[column].to_numpy()
        codes, names = prompt_ids.indices.to_numpy(), prompt_ids.dictionary.to_pylist()
        row_of_code = {seed: np.array([rows.get(name, -1) for name in names]) for seed, rows in row_of.items()}
        unknown = np.full(len(names), -1)
        for task, arm, span in _blocks(table):
            if wanted(task, arm):
                rows = row_of_code.get(task.seed, unknown)[codes[span]]
                yield _Block(file, task, arm, rows, _numbers(file, arm, column, values[span]))


def _numbers(file: Path, arm: ArmId, column: str, values: np.ndarray) -> np.ndarray:
    """Return the values (n) as float64. Raise FileError unless all are numbers, scores from 0 to 1."""
    least, most = (0.0, 1.0) if column == "score" else (-np.inf, np.inf)
    if values.dtype != np.float32 or not (np.isfinite(values) & (values >= least) & (values <= most)).all():
        raise FileError(f"{file}: a {column} of {arm} is none that can be", "score again")
    return values.astype(np.float64)


def _blocks(table: pa.Table) -> Iterator[tuple[TaskId, ArmId, slice]]:
    """The rows of each arm in each task, which are consecutive."""
    starts = _starts(table)
    constant = table.select(_BLOCK).take(starts).to_pylist()
    for row, start, end in zip(constant, starts, [*starts, len(table)][1:], strict=True):
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
