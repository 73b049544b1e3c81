"""YAML as DVC reads it, ruamel.yaml's YAML 1.2, within bounds, and with nothing in it but plain values."""

import math
import re
import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from pipeline.core.errors import UserError, one_line, shown

MOST_BYTES = 1 << 20
MOST_VALUES = 10_000  # counting what an alias repeats
DEEPEST = 20
_PLAIN = (str, bool, int, float, type(None))


def read_yaml(path: Path) -> Any:
    """The values in a YAML file. Raise UserError as `parse_yaml` does, or when it is no regular file of text."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UserError(f"{path} is not a regular file: put one in its place")
        if state.st_size > MOST_BYTES:
            raise UserError(f"{path} has {state.st_size} bytes, more than {MOST_BYTES}: take out what is no parameter")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is not UTF-8 (line {line}): save it as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Any:
    """The values in a YAML text; `name` is what messages call it.

    Raises: UserError when it is not YAML, names a key twice, holds tags, numbers that are not finite or keys that are
        not text, is nested deeper than DEEPEST, or has more than MOST_VALUES values once its aliases are followed.
    """
    try:
        _check_extent(text, name)
        value = YAML(typ="safe").load(text)
    except UserError:
        raise
    except DuplicateKeyError as error:
        found = re.search(r'duplicate key "(.*?)" with value', str(error.problem), re.DOTALL)
        key = shown(found[1] if found else "?")
        raise UserError(f"{name}, line {_line(error)}: key {key} stands there a second time: remove one") from None
    except MarkedYAMLError as error:
        raise UserError(f"{name} is not valid YAML: line {_line(error)}: {one_line(str(error.problem), 80)}") from None
    except Exception as error:  # besides YAMLError whatever int(), float() and the like say of a tagged text
        raise UserError(f"{name} is not valid YAML: {one_line(str(error), 80)}") from None
    _check_plain(value, "", name)
    return value


def _line(error: MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _check_extent(text: str, name: str) -> None:
    """Look at the text's events, which takes no stack and no memory, before values are made of them."""
    total = 0
    sizes: dict[str | None, int] = {}  # of what an alias stands for
    opened: list[tuple[str | None, int]] = []
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, AliasEvent):
            total += sizes.get(event.anchor, 0)
        elif isinstance(event, CollectionStartEvent):
            opened.append((event.anchor, total))
            sizes[event.anchor] = MOST_VALUES  # until it ends: one that holds itself has no end
        elif isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            sizes[anchor] = total - before + 1
        elif isinstance(event, NodeEvent):
            sizes[event.anchor] = 1
        total += isinstance(event, NodeEvent)
        if total > MOST_VALUES:
            raise UserError(f"{name} has more than {MOST_VALUES} values, aliases followed: take some out")
        if len(opened) > DEEPEST:
            raise UserError(f"{name} is nested deeper than {DEEPEST} levels: write it flatter")


def _check_plain(value: Any, key: str, name: str) -> None:
    if isinstance(value, dict):
        for each, below in value.items():
            if not isinstance(each, str):
                raise UserError(
                    f"{name}: key {shown(each)} {f'below {key} ' if key else ''}is not text: put it in quotes"
                )
            _check_plain(below, f"{key}.{one_line(each, 80)}".lstrip("."), name)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            _check_plain(below, f"{key}.{index}", name)
    elif not isinstance(value, _PLAIN):
        raise UserError(f"{name}: {key} = {shown(value)} is a {type(value).__name__}: put text in quotes")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(
            f"{name}: {key} = {value} is not allowed: should be a finite number (quote text that reads as one, such as "
            "the commit '12e3456')"
        )
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{name}: {key} is an integer beyond 64 bits: give a smaller one, or put text in quotes")
