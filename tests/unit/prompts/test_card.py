"""Which files of a dataset are which split: as its README.md says, else as their names do."""

import time
from pathlib import Path

import pytest
import yaml

from pipeline.core.hub import Snapshot
from pipeline.prompts.hub_splits import splits_of

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
    (
        ["a.csv", "b.csv", "a.parquet", "b.parquet"],
        {"train": ["a.parquet", "b.parquet"]},
    ),  # the same twice, it is taken
    ([".hidden/train.csv", "__cache__/b.csv", "a.csv"], {"train": ["a.csv"]}),
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
    ("data_dir: ./d/", {"train": ["d/train.csv"], "test": ["d/test.csv"]}),
    ("data_dir: .", {"train": ["data/train-00000-of-00001.csv"]}),
    ("data_dir: d, data_files: c.csv", {"train": ["d/c.csv"]}),
    ("data_dir: d, data_files: {split: x, path: '*.csv'}", {"x": ["d/c.csv", "d/test.csv", "d/train.csv"]}),
    ("data_files: a.csv, default: false", {"train": ["a.csv"]}),
    ("data_files: a.csv, features: [{name: x, dtype: y}], version: [x], drop_labels: {}", {"train": ["a.csv"]}),
]
LISTS = [  # of configs, of which the second is the default
    "{config_name: a, data_files: a.csv}, {config_name: default, data_files: b.csv}",
    "{config_name: a, data_files: a.csv, default: false}, {config_name: b, default: true, data_files: b.csv}",
    "{config_name: a, data_files: pictures/*.png}, {config_name: default, data_files: b.csv}",
    "{config_name: a, data_dir: pictures}, {config_name: default, data_files: b.csv}",
    "{config_name: a, data_files: /etc/x}, {config_name: default, data_files: b.csv}",
]
TOO_MANY = {  # what takes a library forever, or the reduction of it
    "stars": "{config_name: a, data_files: '" + "*a" * 500 + "*b'}",
    "folders": "{config_name: a, data_files: '" + "**/a/" * 100 + "b'}",
    "paths": "{config_name: a, data_files: [" + "a.csv, " * 11_000 + "]}",
    "paths of many splits": "{config_name: a, data_files: [&x {split: x, path: ["
    + "a.csv, " * 200
    + "]}"
    + ", *x" * 100_000
    + "]}",
    "configs": "&c {}" + ", *c" * 100_000,
    "a path": "{config_name: a, data_files: " + "x" * 2000 + "}",
    "lists in lists": "{config_name: a, data_files: &a [&b [" + "*a, " * 1000 + "*b]]}",
}


def dataset(folder: Path, names: list[str], card: str | None = None) -> Snapshot:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("prompt\nA prompt\n")
    if card is not None:
        (folder / "README.md").write_text(card)
    return Snapshot(folder, [*names, *([] if card is None else ["README.md"])])


def with_configs(configs: str) -> str:
    return f"---\nlicense: mit\nconfigs: [{configs}]\n---\nText\n"


@pytest.mark.parametrize("card", [None, "# No front matter", "---\nlicense: mit\n---\n", with_configs("")])
@pytest.mark.parametrize(("names", "splits"), NAMES)
def test_names_tell_the_splits_of_a_dataset_whose_card_does_not(
    tmp_path: Path, names: list[str], splits: dict[str, list[str]], card: str | None
) -> None:
    assert splits_of(dataset(tmp_path, names, card)) == splits


@pytest.mark.parametrize(("config", "splits"), CARDS)
def test_card_chooses_among_the_names(tmp_path: Path, config: str, splits: dict[str, list[str]]) -> None:
    assert splits_of(dataset(tmp_path, FILES, with_configs(f"{{config_name: any, {config}}}"))) == splits


@pytest.mark.parametrize("configs", LISTS)
def test_default_config_is_taken_whatever_the_others_are(tmp_path: Path, configs: str) -> None:
    assert splits_of(dataset(tmp_path, FILES, with_configs(configs))) == {"train": ["b.csv"]}


def test_text_that_yaml_takes_for_something_else_stays_text(tmp_path: Path) -> None:
    names = ["1", "true", "null", "2020-01-01", "é", "x #y", "- z", "'", "😀"]
    configs = yaml.safe_dump([{"config_name": "1", "data_files": [f"{name}.csv" for name in names]}])
    card = f"---\nconfigs:\n{configs}---\n"
    assert splits_of(dataset(tmp_path, [f"{name}.csv" for name in names], card)) == {
        "train": [f"{n}.csv" for n in names]
    }


def test_files_that_were_not_checked_are_not_there(tmp_path: Path) -> None:
    for name in ["b.csv", "README.md", "dataset_infos.json", ".huggingface.yaml", "files.py"]:
        (tmp_path / name).write_text("configs: [")
    assert splits_of(dataset(tmp_path, ["a.csv"])) == {"train": ["a.csv"]}


def test_name_that_would_be_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the name of one of its files holds ::"):
        splits_of(dataset(tmp_path, ["a::github::b.csv", "c.csv"]))


@pytest.mark.parametrize("case", TOO_MANY)
def test_card_that_asks_for_too_much_takes_no_time(tmp_path: Path, case: str) -> None:
    names = ["a" * 250 + ".csv", "a/" * 250 + "a.csv"]
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"its README\.md"):
        splits_of(dataset(tmp_path, names, with_configs(TOO_MANY[case])))
    assert time.monotonic() - start < 60
