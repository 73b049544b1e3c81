"""Reading one section of params.yaml, and saying in one line what is wrong with it."""

import difflib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline.core.errors import UserError, one_line, shown
from pipeline.core.system_errors import system_line
from pipeline.params.yaml_file import read_yaml

PARAMS_FILE = Path("params.yaml")
MOVED = {"extract.device": "device"}  # earlier key -> key
T = TypeVar("T")
Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$")]
Short = Annotated[str, Field(min_length=1, max_length=255)]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]


class Section(BaseModel):
    """A group of keys: unknown keys are refused, and no value is silently turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def read(key: str, kind: type[T]) -> T:
    """Read the part of params.yaml at a dotted `key` as a validated `kind`.

    Raise UserError in one line with the key, its value and what is allowed.
    """
    value: Any = read_file()
    path = key.split(".")
    for depth, name in enumerate(path):
        if not isinstance(value, dict) or name not in value:
            raise UserError(f"{PARAMS_FILE}: key '{'.'.join(path[: depth + 1])}' is missing: add it")
        value = value[name]
    return validate(key, kind, value)


def read_file() -> dict[str, Any]:
    """The whole of params.yaml as plain values, as DVC reads them."""
    try:
        value = read_yaml(PARAMS_FILE)
    except FileNotFoundError:
        raise UserError(f"{PARAMS_FILE} is not in {Path.cwd()}: run from the project's root") from None
    except OSError as error:
        if system_line(error):
            raise
        raise UserError(
            f"{PARAMS_FILE} cannot be read ({error.strerror}): restore it, or let yourself read it"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{PARAMS_FILE} holds no keys: restore it with 'git checkout {PARAMS_FILE}'")
    return value


def validate(key: str, kind: type[T], value: Any) -> T:
    """Turn plain values into a `kind`; `key` is where they stand in params.yaml ('' for the root)."""
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        # a misspelt key is also a missing one: tell of the misspelling
        first, *others = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{PARAMS_FILE}: {_sentence(key, kind, first)}{more}") from None


def _sentence(prefix: str, kind: Any, error: ErrorDetails) -> str:
    parts = [*([prefix] if prefix else []), *(str(part) for part in error["loc"] if part != "[key]")]
    key = one_line(".".join(parts), 80)
    if error["type"] == "extra_forbidden":
        known = _keys_of(kind, [str(part) for part in error["loc"][:-1]])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        hint = f", it is now '{MOVED[key]}'" if key in MOVED else hint
        return f"unknown key '{key}'{hint} (allowed here: {', '.join(known)})"
    if error["type"] == "missing":
        return f"key '{key}' is missing: add it"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key} = {shown(error['input'])} is not allowed: {message}"


def _keys_of(kind: Any, path: list[str]) -> list[str]:
    """The keys that stand at `path` below `kind`."""
    for name in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[name].annotation
        else:  # a mapping of names to sections
            kind = kind.__args__[-1]
    return list(kind.model_fields)
