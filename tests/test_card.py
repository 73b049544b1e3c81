"""Which files of a dataset are which split: as its README.md says, else as their names do."""

import pytest

from pipeline.prompts.card import splits_of

NAMES = [
    (["a.csv", "b/c.csv"], {"train": ["a.csv", "b/c.csv"]}),
    (["data/train.csv", "data/dev.csv"], {"train": ["data/train.csv"], "validation": ["data/dev.csv"]}),
    (["train/a.csv", "test/b.csv", "c.csv"], {"train": ["train/a.csv"], "test": ["test/b.csv"]}),
    (["my_train_file.csv", "my-eval.csv", "trainer.csv"], {"train": ["my_train_file.csv"], "test": ["my-eval.csv"]}),
    (["test.csv", "sub/test/train.csv"], {"test": ["sub/test/train.csv"]}),
    (
        ["data/train-00000-of-00001.csv", "data/odd-00000-of-00001.csv", "c.csv"],
        {"odd": ["data/odd-00000-of-00001.csv"], "train": ["data/train-00000-of-00001.csv"]},
    ),
    ([".hidden/train.csv", "__cache__/b.csv", "a.csv"], {"train": ["a.csv"]}),
    ([], {}),
]
FILES = ["a.csv", "b.csv", "d/c.csv", "d/e/f.csv", "d/train.csv", "d/test.csv", "data/train-00000-of-00001.csv"]
CARDS = [
    ("data_files: a.csv", {"train": ["a.csv"]}),
    ("data_files: ./a.csv", {"train": ["a.csv"]}),
    ("data_files: [b.csv, a.csv, b.csv]", {"train": ["b.csv", "a.csv"]}),
    ("data_files: '*.csv'", {"train": ["a.csv", "b.csv"]}),
    ("data_files: '[b-z].csv'", {"train": ["b.csv"]}),
    ("data_files: '**/[a-f].csv'", {"train": ["a.csv", "b.csv", "d/c.csv", "d/e/f.csv"]}),
    ("data_files: d/e/**", {"train": ["d/e/f.csv"]}),
    ("data_files: data/train-*", {"train": ["data/train-00000-of-00001.csv"]}),
    (
        "data_files: [{split: x, path: [d/c.csv, a*]}, {split: y, path: b.csv}]",
        {"x": ["d/c.csv", "a.csv"], "y": ["b.csv"]},
    ),
    ("data_dir: d", {"train": ["d/train.csv"], "test": ["d/test.csv"]}),
    ("data_dir: d, data_files: c.csv", {"train": ["d/c.csv"]}),
]


@pytest.mark.parametrize(("names", "splits"), NAMES)
def test_names_tell_the_splits_of_a_dataset_without_a_card(names: list[str], splits: dict[str, list[str]]) -> None:
    assert splits_of("# No front matter", names) == splits


@pytest.mark.parametrize(("config", "splits"), CARDS)
def test_card_chooses_among_the_names(config: str, splits: dict[str, list[str]]) -> None:
    assert splits_of(f"---\nconfigs: [{{config_name: any, {config}}}]\n---\nText", FILES) == splits


@pytest.mark.parametrize("mark", ["config_name: default", "config_name: b, default: true"])
def test_default_config_is_taken(mark: str) -> None:
    card = f"---\nconfigs: [{{config_name: a, data_files: a.csv}}, {{{mark}, data_files: b.csv}}]\n---\n"
    assert splits_of(card, FILES) == {"train": ["b.csv"]}


def test_pattern_of_many_stars_takes_no_time() -> None:
    card = "---\nconfigs: [{config_name: a, data_files: '" + "*a" * 500 + "*b'}]\n---\n"
    with pytest.raises(ValueError, match="none of its files"):
        splits_of(card, ["a" * 250 + ".csv"])
