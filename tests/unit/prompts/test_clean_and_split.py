"""Filter and split: every dropped row has a reason, and no near-duplicate is on both sides."""

import random
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import sample_rows

from pipeline.prompts.clean import clean
from pipeline.prompts.items import shingle_sets
from pipeline.prompts.near_duplicates import near_duplicate_groups
from pipeline.prompts.raw import to_raw_table
from pipeline.prompts.split import split_prompts


def raw(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {name: name for name in ("prompt", "source", "cluster")}
    return to_raw_table(pa.Table.from_pylist(rows), columns, 6, 50_000, "refuse", "test")


ROWS = sample_rows(1200)
OPTIONS: dict[str, Any] = {"min_chars": 15, "deduplicate": True, "max_prompts": 10_000, "seed": 0}
CLEAN = clean(raw(ROWS), **OPTIONS)[0]
SPLIT_OPTIONS: dict[str, Any] = {
    "test_fraction": 0.2,
    "near_duplicate": 0.6,
    "shingle_chars": 5,
    "same_words": 0.6,
    "template_words": 8,
    "largest_group": 0.05,
    "seeds": [0],
}


def test_each_reason_drops_its_rows() -> None:
    def row(prompt: str, cluster: int, source: str = "a") -> dict[str, Any]:
        return {"prompt": prompt, "source": source, "cluster": cluster}

    rows = [
        row("Is\n", 3),
        row("a prompt that stands twice", 1),
        row("a prompt that stands twice", 1, "b"),
        row("a prompt with two labels", 1),
        row("a prompt with two labels", 4),
        row("fifteen letters", 2),
        row("fourteen chars", 2),
        row(" " * 20, 2),
    ]
    table, counts = clean(raw(rows), **OPTIONS)
    assert sorted(table["prompt"].to_pylist()) == ["a prompt that stands twice", "fifteen letters"]
    assert counts["dropped"] == {"too_short": 3, "duplicate": 1, "conflicting_label": 2, "over_max_prompts": 0}
    assert counts["conflicting_groups"] == 1
    kept, counts = clean(raw(rows), **OPTIONS | {"deduplicate": False})
    assert kept.num_rows == 5 and counts["dropped"]["duplicate"] == 0


def test_counts_add_up_and_the_cut_keeps_proportions() -> None:
    table, counts = clean(raw(ROWS), **OPTIONS | {"max_prompts": 400})
    assert counts["rows"] == len(ROWS) == sum(counts["dropped"].values()) + counts["kept"]
    assert counts["kept"] == table.num_rows == 400
    for name in ("cluster", "source"):
        before, after = Counter(CLEAN[name].to_pylist()), Counter(table[name].to_pylist())
        for value, count in before.items():
            assert abs(after[value] - count * 400 / CLEAN.num_rows) <= 6


def test_reordering_the_rows_changes_nothing() -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    again = clean(raw(shuffled), **OPTIONS)[0]
    assert again.equals(CLEAN)
    assert split_prompts(again, **SPLIT_OPTIONS)[0].equals(split_prompts(CLEAN, **SPLIT_OPTIONS)[0])


@cache
def shingles(prompt: str) -> set[str]:
    text = " ".join(prompt.lower().split())
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}


def jaccard(left: str, right: str) -> float:
    return len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))


def test_no_test_prompt_has_a_near_duplicate_in_train() -> None:
    table, counts = split_prompts(CLEAN, **SPLIT_OPTIONS)
    prompts = dict(zip(CLEAN["prompt_id"].to_pylist(), CLEAN["prompt"].to_pylist(), strict=True))
    sides: dict[str, list[str]] = {"train": [], "test": []}
    for row in table.to_pylist():
        sides[row["split"]].append(prompts[row["prompt_id"]])
    closest = max(jaccard(left, right) for left in sides["test"] for right in sides["train"])
    assert closest < 0.6
    assert counts["groups_of_several"] > 20, "the sample should have near-duplicates for this to mean something"


def connected(prompts: list[str], threshold: float) -> list[int]:
    """Groups by comparing all pairs, numbered by their first prompts."""
    groups = list(range(len(prompts)))
    for right in range(len(prompts)):
        for left in range(right):
            if groups[left] != groups[right] and jaccard(prompts[left], prompts[right]) >= threshold:
                new, old = sorted((groups[left], groups[right]))
                groups = [new if number == old else number for number in groups]
    return [sorted(set(groups)).index(number) for number in groups]


def numbered_by_first_prompt(groups: np.ndarray) -> list[int]:
    order = list(dict.fromkeys(groups.tolist()))
    return [order.index(number) for number in groups.tolist()]


@pytest.mark.parametrize("threshold", [0.45, 0.6, 0.9, 1.0])
def test_groups_are_exactly_the_connected_near_duplicates(threshold: float) -> None:
    prompts = CLEAN["prompt"].to_pylist()[:300]
    prompts += [f"  {prompt.upper()}" for prompt in prompts[:20]]
    groups = numbered_by_first_prompt(near_duplicate_groups(shingle_sets(prompts, 5), threshold))
    assert groups == connected(prompts, threshold)
    assert 20 <= len(prompts) - max(groups) - 1 < 300


def words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("abcdefghij", k=6)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_random_prompts_are_those_of_all_pairs(seed: int) -> None:
    """Chains of ever more changed copies, of lengths from one word to several thousand shingles."""
    rng = random.Random(seed)
    prompts = []
    for _ in range(25):
        text = words(rng, int(2 ** rng.uniform(0, 9)))
        for _ in range(rng.randrange(1, 6)):
            prompts.append(" ".join(text))
            for _ in range(len(text) // 25 + rng.randrange(2)):
                text[rng.randrange(len(text))] = words(rng, 1)[0]
    rng.shuffle(prompts)
    groups = numbered_by_first_prompt(near_duplicate_groups(shingle_sets(prompts, 5), 0.6))
    assert groups == connected(prompts, 0.6)
    assert 20 < max(groups) + 1 < len(prompts)


def crowd(wrapper_words: int, core_words: int, cores: int, ends: list[str]) -> list[str]:
    """Prompts that share a wrapper, every core once with each end."""
    rng = random.Random(0)
    wrapper = " ".join(words(rng, wrapper_words))
    asked = [" ".join(words(rng, core_words)) for _ in range(cores)]
    return [f"{wrapper} {core} {end}" for end in ends for core in asked]


def test_near_duplicates_are_told_apart_in_a_crowd() -> None:
    prompts = crowd(20, 12, 300, ["", "now", "again"])
    assert 0.4 < jaccard(prompts[0], prompts[1]) < 0.6
    groups = near_duplicate_groups(shingle_sets(prompts, 5), 0.6)
    assert numbered_by_first_prompt(groups) == list(range(300)) * 3


def test_no_pair_of_a_bucket_is_forgotten() -> None:
    """At 1.0 there is one band, and most prompts have the signature of the wrapper: too many pairs for one go."""
    prompts = crowd(150, 1, 800, [""])
    prompts += [prompt.upper() for prompt in prompts]
    groups = near_duplicate_groups(shingle_sets(prompts, 5), 1.0)
    assert numbered_by_first_prompt(groups) == list(range(800)) * 2


def test_similar_pairs_are_those_by_python_sets() -> None:
    """Long sets, whose bitmaps rule little out, and more pairs of them than are compared in one go."""
    prompts = crowd(60, 22, 100, ["", "now", "again"])
    left, right = np.triu_indices(len(prompts), 1)
    similar = [jaccard(prompts[i], prompts[j]) >= 0.57 for i, j in zip(left, right, strict=True)]
    found, similarities = shingle_sets(prompts, 5).similar(left, right, 0.57)
    assert found.tolist() == np.flatnonzero(similar).tolist()
    assert similarities.tolist() == [jaccard(prompts[left[pair]], prompts[right[pair]]) for pair in found]
    assert 300 < len(found) < len(left) - 300


def test_thousands_of_copies_with_a_word_changed_are_one_group() -> None:
    rng = random.Random(0)
    text = " ".join(words(rng, 20))
    prompts = [f"{text} {word}" for word in words(rng, 3000)]
    groups = near_duplicate_groups(shingle_sets([*prompts, "something else altogether"], 5), 0.6)
    assert set(groups[:-1].tolist()) == {groups[0]} != {groups[-1]}


@pytest.mark.parametrize("fraction", [0.2, 0.35])
def test_test_has_its_share_of_every_cluster_and_source(fraction: float) -> None:
    table, counts = split_prompts(CLEAN, **SPLIT_OPTIONS | {"test_fraction": fraction})
    assert counts["prompts"]["test"] / table.num_rows == pytest.approx(fraction, abs=0.02)
    for share in counts["test_share_by_source"].values():
        assert share == pytest.approx(fraction, abs=0.05)
    for cluster in ("3", "4"):
        assert counts["test_share_by_cluster"][cluster] == pytest.approx(fraction, abs=0.03)


def test_many_small_sources_together_have_their_share() -> None:
    rows = [row | {"source": f"source {number % 400}"} for number, row in enumerate(ROWS)]
    table = clean(raw(rows), **OPTIONS)[0]
    splits, _ = split_prompts(table, **SPLIT_OPTIONS)
    assert splits["split"].to_pylist().count("test") / splits.num_rows == pytest.approx(0.2, abs=0.02)


def test_every_seed_has_a_split_of_its_own() -> None:
    table, _ = split_prompts(CLEAN, **SPLIT_OPTIONS | {"seeds": [3, 1]})
    assert table.column_names == ["prompt_id", "group", "split", "split_1", "nearest", "nearest_1", "template"]
    for seed, column in ((3, "split"), (1, "split_1")):
        alone, _ = split_prompts(CLEAN, **SPLIT_OPTIONS | {"seeds": [seed]})
        assert table[column].equals(alone["split"])
        assert table[column.replace("split", "nearest")].equals(alone["nearest"])
    assert not table["split"].equals(table["split_1"])


def test_names_of_sources_and_the_order_of_prompts_change_nothing() -> None:
    def sides(table: pa.Table) -> dict[str, str]:
        return {row["prompt_id"]: row["split"] for row in split_prompts(table, **SPLIT_OPTIONS)[0].to_pylist()}

    rows = [row | {"source": f"renamed {row['source'][::-1]}"} for row in CLEAN.to_pylist()]
    assert sides(pa.Table.from_pylist(rows[::-1])) == sides(CLEAN)


def test_the_leak_of_a_random_split_is_told() -> None:
    table, counts = split_prompts(CLEAN, **SPLIT_OPTIONS)
    sizes = Counter(table["group"].to_pylist())
    # each other prompt of the group is in train with probability 0.8, nearly independently
    expected = sum(1 - 0.2 ** (sizes[group] - 1) for group in table["group"].to_pylist()) * 0.2
    assert expected > 10 and counts["leak_of_a_random_split"]["test_prompts"] == pytest.approx(expected, rel=0.15)
