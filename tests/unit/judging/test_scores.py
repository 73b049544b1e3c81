"""The table of scores: written arm by arm, read back by arm, and what does not belong together refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from probe_data import made

from pipeline.core.errors import UserError
from pipeline.core.files import write_table
from pipeline.judging.arm import ArmId, nested, of_arm
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.scores import (
    SCORES,
    Scores,
    TaskId,
    read_out_of_fold,
    read_scores,
    scored_rows,
    scores_table,
)
from pipeline.judging.settings import Balancing
from pipeline.prompts.table import Prompts

FULL = TaskId("balanced", 0, 0)
ARMS = [
    ArmId("tfidf"),
    ArmId("dense", ("resid_post.2",)),
    ArmId("dense", ("resid_post.2", "layer_delta.2")),
    ArmId("sae-l1", ("resid_post.2",), "batch_topk"),
    ArmId("sae", ("resid_post.2",), "batch_topk", 16),
    ArmId("sae", ("resid_post.2",), "batch_topk", 8),
    ArmId("words-dense-and-sae", ("resid_post.2", "layer_delta.2"), "batch_topk"),
]


def written(folder: Path, prompts: Prompts, tasks: list[TaskId] | None = None) -> tuple[Path, Scores]:
    """A file of scores of all ARMS in all tasks, and what is in it."""
    rng = np.random.default_rng(0)
    count = len(scored_rows(prompts))
    blocks = [(task, arm, rng.random(count).astype(np.float32)) for task in tasks or [FULL] for arm in ARMS]
    write_table(folder / "scores.parquet", scores_table(prompts, blocks))
    expected: Scores = {}
    for task, arm, scores in blocks:
        expected.setdefault(task, {})[arm] = scores
    return folder / "scores.parquet", expected


def test_a_table_of_no_arm_is_read_as_none(tmp_path: Path) -> None:
    prompts, _ = made(50, 0)
    write_table(tmp_path / "scores.parquet", SCORES.empty_table())
    assert read_scores([tmp_path / "scores.parquet"], {0: prompts}) == {}


def test_arms_have_names_for_people_metrics_and_folders() -> None:
    assert [str(arm) for arm in ARMS] == [
        "tfidf",
        "dense @ resid_post.2",
        "dense @ resid_post.2 + layer_delta.2",
        "sae-l1_batch_topk @ resid_post.2",
        "sae-k16_batch_topk @ resid_post.2",
        "sae-k8_batch_topk @ resid_post.2",
        "words-dense-and-sae_batch_topk @ resid_post.2 + layer_delta.2",
    ]
    assert [arm.classifier for arm in ARMS[3:5]] == ["sae-l1", "sae-k16"]
    assert ARMS[4].of_all_features() == ArmId("sae", ("resid_post.2",), "batch_topk")
    metrics = nested((arm, number) for number, arm in enumerate(ARMS))
    assert metrics["text"] == {"tfidf": 0} and metrics["resid_post.2"]["sae-k16_batch_topk"] == 4
    assert [of_arm(metrics, arm) for arm in ARMS] == list(range(len(ARMS)))


def test_scores_are_read_back_by_task_and_arm_whatever_these_read(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, expected = written(tmp_path, prompts, [FULL, TaskId("scarce_16", 0, 0), TaskId("scarce_16", 1, 0)])
    found = read_scores([file], {0: prompts})
    assert {task: list(arms) for task, arms in found.items()} == dict.fromkeys(expected, ARMS)
    for task, arms in expected.items():
        for arm, scores in arms.items():
            np.testing.assert_array_equal(found[task][arm], scores)
    only = read_scores([file], {0: prompts}, lambda task, arm: task == FULL and arm.k == 8)
    assert list(only) == [FULL] and list(only[FULL]) == [ARMS[5]]


def test_the_file_has_a_column_for_everything_that_tells_arms_apart(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, _ = written(tmp_path, prompts)
    table = pq.read_table(file)
    assert table.schema.names == SCORES.names
    count = len(scored_rows(prompts))
    first = [table.slice(number * count, 1).to_pylist()[0] for number in range(len(ARMS))]
    assert [(row["arm"], tuple(row["points"]), row["variant"], row["k"]) for row in first] == [
        (arm.name, arm.points, arm.variant, arm.k) for arm in ARMS
    ]
    assert table["prompt_id"][:count].to_pylist() == [prompts.ids[row] for row in scored_rows(prompts)]
    assert table["split"].unique().to_pylist() == ["test"]


def test_out_of_fold_logits_are_beside_the_scores_and_read_on_their_own(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    rng = np.random.default_rng(0)
    train = np.flatnonzero(prompts.train)[::2]
    count = len(scored_rows(prompts))
    sure = np.append(rng.random(count - 2), [0.0, 1 - 1e-12])
    own = {arm: np.append(rng.normal(size=len(train) - 1), 40.0).astype(np.float32) for arm in ARMS[:2]}
    blocks = [(FULL, arm, sure) for arm in ARMS]
    file = tmp_path / "scores.parquet"
    write_table(file, scores_table(prompts, blocks, [(FULL, arm, train, logits) for arm, logits in own.items()]))
    found = read_out_of_fold([file], {0: prompts})
    assert list(found) == [FULL] and found[FULL].rows.tolist() == train.tolist()
    assert list(found[FULL].logits) == list(own)
    for arm, logits in own.items():
        np.testing.assert_array_equal(found[FULL].logits[arm], logits)
    assert list(read_out_of_fold([file], {0: prompts}, lambda task, arm: arm == ARMS[1])[FULL].logits) == [ARMS[1]]
    assert list(read_scores([file], {0: prompts})[FULL]) == ARMS, "which are of other prompts"
    logits = read_scores([file], {0: prompts}, column="logit")[FULL][ARMS[0]]
    assert np.isfinite(logits).all() and logits[-1] == pytest.approx(27.63, abs=0.01)
    rows = pq.read_table(file).to_pylist()
    of_train = [row for row in rows if row["split"] == "train"]
    assert len(of_train) == 2 * len(train) and of_train[-1]["score"] == 1 and of_train[-1]["logit"] == 40


def test_out_of_fold_logits_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    train, test = np.flatnonzero(prompts.train), np.flatnonzero(prompts.test)
    file = tmp_path / "scores.parquet"
    for rows in ([train[:9], train[1:10]], [test[:9], test[:9]]):
        own = [(FULL, arm, some, np.zeros(9)) for arm, some in zip(ARMS, rows, strict=False)]
        spoilt = replace(prompts, sides=np.where(np.isin(np.arange(60), np.concatenate(rows)), "train", prompts.sides))
        write_table(file, scores_table(spoilt, [], own))
        with pytest.raises(UserError, match="are not of the prompts that arms learn from: run 'dvc repro'"):
            read_out_of_fold([file], {0: prompts})
    with pytest.raises(UserError, match="are not of the prompts that arms learn from"):
        read_out_of_fold([file], {1: prompts})
    write_table(file, scores_table(prompts, [], [(FULL, ARMS[0], train, np.zeros(len(train)))]))
    with pytest.raises(UserError, match="the scores of tfidf in balanced are there twice"):
        read_out_of_fold([file, file], {0: prompts})


def test_tables_without_arms_and_arms_without_prompts_are_tables_of_scores() -> None:
    prompts, _ = made(60, 0)
    assert scores_table(prompts, []).schema == SCORES
    nobody = replace(prompts, sides=np.full(60, "train"))
    assert scores_table(nobody, [(FULL, ARMS[1], np.zeros(0))]).num_rows == 0


def test_scores_of_other_prompts_are_refused(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, _ = written(tmp_path, prompts)
    more = replace(prompts, sides=np.where(np.arange(60) == np.flatnonzero(prompts.train)[0], "test", prompts.sides))
    renamed = replace(prompts, ids=[f"other {prompt_id}" for prompt_id in prompts.ids])
    for others in ({0: more}, {0: renamed}, {1: prompts}):
        with pytest.raises(UserError, match="the scores of tfidf are not of the test prompts: run 'dvc repro'"):
            read_scores([file], others)


def test_scores_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, _ = written(tmp_path, prompts)
    with pytest.raises(UserError, match="the scores of tfidf in balanced are there twice"):
        read_scores([file, file], {0: prompts})


def test_a_table_of_an_earlier_version_is_refused_in_a_line(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    write_table(tmp_path / "old.parquet", pa.table({"setting": ["balanced"], "point": ["text"], "arm": ["tfidf"]}))
    with pytest.raises(UserError, match=r"old\.parquet lacks columns of a table of scores"):
        read_scores([tmp_path / "old.parquet"], {0: prompts})


def test_a_seed_without_scores_is_told(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, _ = written(tmp_path, prompts)
    with pytest.raises(UserError, match="no scores of seed 1: run 'dvc repro'"):
        Scoreboard(
            read_scores([file], {0: prompts}),
            {},
            {0: prompts, 1: prompts},
            balancing=Balancing("even", 2),
            resamples=100,
            confidence=0.9,
        )


@pytest.mark.parametrize(("column", "value"), [("score", np.nan), ("score", 1.5), ("score", np.inf), ("logit", np.nan)])
def test_values_that_no_arm_gives_are_refused(column: str, value: float, tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, _ = written(tmp_path, prompts)
    table = pq.read_table(file)
    values = table[column].to_numpy().copy()
    values[3] = value
    write_table(file, table.set_column(table.column_names.index(column), column, pa.array(values)))
    with pytest.raises(UserError, match=f"scores.parquet: a {column} of tfidf is none that can be"):
        read_scores([file], {0: prompts}, column=column)  # type: ignore[arg-type]


def test_an_arm_without_scores_is_told(tmp_path: Path) -> None:
    prompts, _ = made(60, 0)
    file, _ = written(tmp_path, prompts)
    with pytest.raises(UserError, match=r"there are no scores of rbf @ resid_post\.2: run 'dvc repro'"):
        read_scores([file], {0: prompts})[FULL][ArmId("rbf", ("resid_post.2",))]
