"""Read from a dataset's README.md which files are which split, and nothing else."""

import re
from pathlib import PurePosixPath
from typing import Any
from unicodedata import category

import yaml

MAX_CARD_CHARS = 1 << 20
_MAX_PATHS = 10_000
_MAX_PATH_CHARS = 1024
_MAX_STEPS = 100_000  # to compare patterns with names, of which a library makes some thousand a second
_CARD = re.compile(r"\s*---[^\S\n]*\n(.*?)\n---[^\S\n]*(\n|\Z)", re.DOTALL)


def reduced_card(card: str, names: list[str]) -> tuple[PurePosixPath, str]:
    """Return where the data files are, and a README.md that says only which of them are which split.

    Args:
        card: the text of a README.md, which may be empty.
        names: the dataset's data files, as paths with slashes.

    Returns: the folder (`data_dir` of the default config), and a text that names only paths and patterns below it (its
        `data_files`). The text is empty where the names of the files tell the splits.

    Raises: ValueError for a card that is malformed, or that asks for anything but such paths.
    """
    config = _default(_configs(card))
    paths = _Paths(names)
    folder = PurePosixPath(paths.checked(config.get("data_dir", "")))
    if "data_files" not in config:
        return folder, ""
    reduced = {"config_name": "default", "data_files": _data_files(config["data_files"], paths)}
    return folder, f"---\n{yaml.safe_dump({'configs': [reduced]})}---\n"


def _configs(card: str) -> list[dict[Any, Any]]:
    match = _CARD.match(card[:MAX_CARD_CHARS])
    try:
        # only text, lists and mappings: nothing that YAML makes of them is wanted
        front_matter = yaml.load(match[1], yaml.BaseLoader) if match else None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ValueError("its README.md does not begin with valid YAML") from None
    configs = (front_matter.get("configs") if isinstance(front_matter, dict) else None) or []
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise ValueError("its README.md has configs that are no list of mappings")
    return configs


def _default(configs: list[dict[Any, Any]]) -> dict[Any, Any]:
    """Return the config that is read. Libraries also look at files of other configs, which may be of unknown kinds."""
    if len(configs) < 2:
        return configs[0] if configs else {}
    found = [
        config
        for config in configs
        if config.get("config_name") == "default" or str(config.get("default")).lower() == "true"
    ]
    if len(found) != 1:
        raise ValueError(f"its README.md has {len(configs)} configs, of which {len(found)} are the default")
    return found[0]


class _Paths:
    """Checks paths and patterns one by one, and counts how much work a library has with them."""

    def __init__(self, names: list[str]) -> None:
        self._names, self._longest = len(names), max(map(len, names), default=0)
        self._count = self._steps = 0

    def checked(self, path: Any) -> str:
        self._count += 1
        if not isinstance(path, str):
            raise ValueError("its README.md has configs with something else than text for a name or path")
        if not _stays_below(path):
            raise ValueError(f"its README.md asks for {ascii(path)[:80]}, which is none of its files")
        stars = len(re.findall(r"\*+", path))
        is_pattern = any(character in path for character in "*?[")
        self._steps += self._names * self._longest ** max(0, stars - 1) if is_pattern else 1
        if self._count > _MAX_PATHS or self._steps > _MAX_STEPS:
            raise ValueError("its README.md has too many data_files, or patterns with too many stars")
        return str(PurePosixPath(path))


def _stays_below(path: str) -> bool:
    """Return whether a path or pattern, joined to a folder, can only mean files below it, on any system."""
    return (
        len(path) <= _MAX_PATH_CHARS
        and not path.startswith(("/", "~"))
        and ".." not in path.split("/")
        and not any(character in ":\\" or category(character) in ("Cc", "Cs") for character in path)
    )


def _data_files(wanted: Any, paths: _Paths) -> list[Any]:
    """Return what `data_files` of a config asks for: paths, or mappings with a split and its paths."""
    files: list[Any] = []
    for each in _as_list(wanted):
        if isinstance(each, dict):
            found = [paths.checked(path) for path in _as_list(each.get("path"))]
            files.append({"split": paths.checked(each.get("split")), "path": found})
        else:
            files.append(paths.checked(each))
    return files


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
