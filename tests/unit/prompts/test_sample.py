"""The embedded prompt set has the columns, the shape and the faults that the pipeline has to survive."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from pipeline.prompts.sample import sample_prompts

ROWS, TARGET = 3000, 3
SHORTEST = 15  # characters; the scraps are all shorter
REAL_COUNTS = np.array([422, 1178, 849, 9446, 12770, 1388])


@pytest.fixture(scope="module")
def sample() -> pa.Table:
    return sample_prompts(ROWS, 0)


@pytest.fixture(scope="module")
def balanced(sample: pa.Table) -> tuple[list[str], list[str], np.ndarray]:
    """Prompts, sources and labels: the target against as many others, without copies and scraps."""
    rows = {row["prompt"]: row for row in sample.to_pylist() if len(row["prompt"]) >= SHORTEST}
    label = np.array([row["cluster"] == TARGET for row in rows.values()])
    rng = np.random.default_rng(0)
    others = rng.choice(np.flatnonzero(~label), label.sum(), replace=False)
    chosen = np.concatenate([np.flatnonzero(label), others])
    kept = list(rows.values())
    return [kept[i]["prompt"] for i in chosen], [kept[i]["source"] for i in chosen], label[chosen]


def lengths(sample: pa.Table) -> np.ndarray:
    return np.array([len(prompt) for prompt in sample["prompt"].to_pylist()])


def test_schema(sample: pa.Table) -> None:
    assert sample.schema == pa.schema([("prompt", pa.string()), ("source", pa.string()), ("cluster", pa.int64())])
    assert all(column.null_count == 0 for column in sample.columns)


@pytest.mark.parametrize("rows", [1, 6, 50, 501, 3000])
def test_it_makes_as_many_rows_as_asked(rows: int) -> None:
    assert sample_prompts(rows, 0).num_rows == rows


def test_the_same_seed_gives_the_same_table(sample: pa.Table) -> None:
    assert sample_prompts(ROWS, 0).equals(sample)


def test_it_does_not_depend_on_the_hash_seed() -> None:
    code = "from pipeline.prompts.sample import sample_prompts as s; print(s(200, 3).to_pylist())"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert printed == {(str(sample_prompts(200, 3).to_pylist()) + "\n").encode()}


def test_two_seeds_share_almost_no_prompts(sample: pa.Table) -> None:
    there = {prompt for prompt in sample_prompts(ROWS, 1)["prompt"].to_pylist() if len(prompt) >= SHORTEST}
    shared = [prompt in there for prompt in sample["prompt"].to_pylist()]
    assert np.mean(shared) < 0.05


def test_clusters_are_as_unbalanced_as_the_real_ones_but_usable(sample: pa.Table) -> None:
    counts = np.bincount(sample["cluster"].to_numpy(), minlength=6)
    assert counts.min() >= 50
    large = REAL_COUNTS / REAL_COUNTS.sum() > 0.04
    assert counts[large] / ROWS == pytest.approx(REAL_COUNTS[large] / REAL_COUNTS.sum(), abs=0.03)


def test_rows_are_ordered_by_cluster(sample: pa.Table) -> None:
    assert (np.diff(sample["cluster"].to_numpy()) >= 0).all()


def test_three_sources_of_unequal_size(sample: pa.Table) -> None:
    shares = sorted(count["counts"].as_py() / ROWS for count in pc.value_counts(sample["source"]))
    assert shares == pytest.approx([0.05, 0.31, 0.64], abs=0.05)


def test_the_source_gives_nothing_away(balanced: tuple[list[str], list[str], np.ndarray]) -> None:
    _, sources, label = balanced
    names = np.array(sources)
    rate = {name: label[names == name].mean() for name in set(sources)}
    assert roc_auc_score(label, [rate[name] for name in sources]) < 0.56


def test_scraps_are_present_and_short(sample: pa.Table) -> None:
    scraps = [prompt for prompt in sample["prompt"].to_pylist() if len(prompt) < SHORTEST]
    assert 3 <= len(scraps) <= 0.005 * ROWS


def test_duplicates_are_in_the_templated_source(sample: pa.Table) -> None:
    prompts = [row for row in sample.to_pylist() if len(row["prompt"]) >= SHORTEST]
    copies = len(prompts) - len({row["prompt"] for row in prompts})
    assert 0.06 <= copies / ROWS <= 0.11
    counts = Counter(row["prompt"] for row in prompts)
    assert len({row["source"] for row in prompts if counts[row["prompt"]] > 1}) == 1


def test_some_duplicates_have_conflicting_clusters(sample: pa.Table) -> None:
    clusters: dict[str, set[int]] = {}
    for row in sample.to_pylist():
        if len(row["prompt"]) >= SHORTEST:
            clusters.setdefault(row["prompt"], set()).add(row["cluster"])
    assert 3 <= sum(len(each) > 1 for each in clusters.values()) <= 30


def test_lengths_have_the_real_median_and_a_long_tail(sample: pa.Table) -> None:
    chars = lengths(sample)
    assert 65 <= np.median(chars) <= 90
    assert 400 <= np.quantile(chars, 0.99) <= 1200
    assert (chars > 1500).sum() >= 3


def test_prompts_are_rough(sample: pa.Table) -> None:
    prompts = sample["prompt"].to_pylist()
    assert sum(prompt.endswith("\n") for prompt in prompts) > 100
    assert any("<b>" in prompt for prompt in prompts)
    assert any('"' in prompt for prompt in prompts)
    assert any("\u202e" in prompt for prompt in prompts)


def test_no_pattern_is_left_unfilled(sample: pa.Table) -> None:
    text = "".join(sample["prompt"].to_pylist())
    assert not any(mark in text for mark in ("{", "}", "|", "ACT", "CLAIM", "TEXT"))


def test_length_alone_tells_nothing(balanced: tuple[list[str], list[str], np.ndarray]) -> None:
    prompts, _, label = balanced
    assert 0.4 <= roc_auc_score(label, [len(prompt) for prompt in prompts]) <= 0.6


def test_a_bag_of_words_does_well_but_not_perfectly(balanced: tuple[list[str], list[str], np.ndarray]) -> None:
    prompts, _, label = balanced
    train, test, y_train, y_test = train_test_split(prompts, label, test_size=0.2, random_state=0, stratify=label)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    probe = LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train), y_train)
    assert 0.85 <= roc_auc_score(y_test, probe.decision_function(vectors.transform(test))) <= 0.97
