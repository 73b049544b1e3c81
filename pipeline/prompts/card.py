"""Which files of a dataset are which split, as its README.md says or as their names do.

Whatever a README.md says, it chooses among the names that it is given here: a pattern is compared with them, and never
looked up on a disk or a network.
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import yaml

MAX_CARD_CHARS = 1 << 20
_MAX_COMPARISONS = 2_000_000  # of a pattern with a name
_CARD = re.compile(r"\s*---[^\S\n]*\n(.*?)\n---[^\S\n]*(\n|\Z)", re.DOTALL)
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*")
_WORDS = {
    "train": "train|training",
    "validation": "validation|valid|dev|val",
    "test": "test|testing|eval|evaluation",
}


def splits_of(card: str, names: list[str]) -> dict[str, list[str]]:
    """The files of each split, by the rules of the Hugging Face hub.

    Args:
        card: the text of README.md, which may be empty.
        names: the dataset's data files, as paths with slashes.

    Raises: ValueError for a card that says something else than which of these files to take.
    """
    config = _default_config(_front_matter(card))
    folder = config.get("data_dir", ".")
    if not isinstance(folder, str):
        raise ValueError("its README.md names a data_dir that is not text")
    prefix = "".join(f"{part}/" for part in _parts(folder))
    inside = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    if "data_files" in config:
        chosen = _chosen(config["data_files"], inside)
    else:
        chosen = _by_name([name for name in inside if not _is_hidden(name)])
    return {split: [prefix + name for name in files] for split, files in chosen.items()}


def _front_matter(card: str) -> Any:
    match = _CARD.match(card[:MAX_CARD_CHARS])
    if not match:
        return {}
    try:
        # only text, lists and mappings: nothing that YAML makes of them is wanted
        return yaml.load(match[1], yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ValueError("its README.md does not begin with valid YAML") from None


def _default_config(front_matter: Any) -> dict[str, Any]:
    configs = front_matter.get("configs") if isinstance(front_matter, dict) else None
    if not configs:
        return {}
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise ValueError("its README.md has configs that are no list of mappings")
    found = configs if len(configs) == 1 else [config for config in configs if _is_default(config)]
    if len(found) != 1:
        raise ValueError(f"its README.md has {len(configs)} configs, of which {len(found)} are the default")
    return dict(found[0])


def _is_default(config: dict[str, Any]) -> bool:
    return config.get("config_name") == "default" or str(config.get("default")).lower() == "true"


def _chosen(data_files: Any, names: list[str]) -> dict[str, list[str]]:
    """The files of each split that `data_files` of a config asks for: patterns, or a split and a path each."""
    splits: dict[str, list[str]] = {}
    known = set(names)
    comparisons = 0
    for split, pattern in _wishes(data_files):
        comparisons += 1 if pattern in known else len(names)
        if comparisons > _MAX_COMPARISONS:
            raise ValueError("its README.md has too many data_files")
        found = [pattern] if pattern in known else [name for name in names if _fits(name, pattern)]
        if not found:
            raise ValueError(f"its README.md asks for {ascii(pattern)[:80]}, which is none of its files")
        splits.setdefault(split, []).extend(found)
    if not splits:
        raise ValueError("its README.md names no data_files")
    return {split: list(dict.fromkeys(files)) for split, files in splits.items()}


def _wishes(data_files: Any) -> Iterator[tuple[str, str]]:
    """Pairs of a split and a pattern."""
    for item in data_files if isinstance(data_files, list) else [data_files]:
        split, paths = (item.get("split"), item.get("path")) if isinstance(item, dict) else ("train", [item])
        if not isinstance(split, str) or not _SPLIT_NAME.fullmatch(split):
            raise ValueError("its README.md has data_files without the name of a split")
        for pattern in paths if isinstance(paths, list) else [paths]:
            if not isinstance(pattern, str):
                raise ValueError("its README.md has data_files whose path is not text")
            yield split, pattern


def _fits(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern: `*` stands for any characters of one part, `**` for any parts."""
    if _is_hidden(name):
        return False
    parts = name.split("/")
    ends = {0}  # how many parts of the name the pattern so far can stand for
    for wanted in _parts(pattern):
        if wanted == "**":
            ends = set(range(min(ends), len(parts) + 1)) if ends else set()
        else:
            ends = {end + 1 for end in ends if end < len(parts) and fnmatchcase(parts[end], wanted)}
    return len(parts) in ends


def _by_name(names: list[str]) -> dict[str, list[str]]:
    """Splits by the files' names where no README.md says more; `train` is all where the names say nothing either."""
    shards: dict[str, list[str]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name):
            shards.setdefault(match[1], []).append(name)
    folders = {name: name.split("/")[:-1] for name in names}
    files = {name: name.split("/")[-1:] for name in names}
    return shards or _with_words(folders) or _with_words(files) or ({"train": names} if names else {})


def _with_words(parts_of: dict[str, list[str]]) -> dict[str, list[str]]:
    splits = {}
    for split, words in _WORDS.items():
        word = re.compile(rf"(^|[-._ 0-9])({words})([-._ 0-9]|$)")
        splits[split] = [name for name, parts in parts_of.items() if any(word.search(part) for part in parts)]
    return {split: names for split, names in splits.items() if names}


def _parts(path: str) -> list[str]:
    return path.removeprefix("./").rstrip("/").split("/") if path.rstrip("/") not in ("", ".") else []


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in name.split("/"))
