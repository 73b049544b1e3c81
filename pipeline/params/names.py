"""Names that people give in params.yaml, and when two of them read the same."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

_CONTROLS = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}


def _one_line(text: str) -> str:
    if text != text.strip():
        raise ValueError("should not begin or end with white space")
    if any(unicodedata.category(character) in _CONTROLS for character in text):
        raise ValueError("should hold no control characters")
    if not any(unicodedata.category(character)[0] in "LNPS" for character in text):
        raise ValueError("should have something to see in it")
    return text


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_one_line)]


def distinct(names: list[str]) -> list[str]:
    """Raise ValueError when two names differ in nothing that a reader sees."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        visible = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
        first = seen.setdefault(" ".join(visible.split()), index)
        if first != index:
            raise ValueError(f"should not give {first} and {index} the same name")
    return names
