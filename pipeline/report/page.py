"""Pages from templates: everything that is put into one is escaped, and what cannot be seen is made visible."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.files import write_text

# control characters but for line ends and tabs; marks and overrides of writing direction; zero-width characters
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render pipeline/report/templates/`template`; everything in `content` is escaped.

    `root` in a template is the way from the page to report/.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"visible": visible, "signed": signed, "figure": figure}
    write_text(path, environment.get_template(template).render(content, verdict=verdict))


def visible(text: str) -> str:
    """Name the characters of a text that have no shape of their own, or that turn others around: <U+202E>."""
    return _UNSEEN.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


def figure(value: float | None, form: str = "{:.3f}") -> str:
    """A figure with three decimals, or that there is none."""
    return "none" if value is None else form.format(value)


def signed(value: float | None) -> str:
    return figure(value, "{:+.3f}")


def verdict(difference: dict[str, float]) -> str:
    """What the figures allow to say of one arm beside another: better, worse, or neither shown."""
    if difference["low"] > 0:
        return "better than"
    if difference["high"] < 0:
        return "worse than"
    return "not shown to differ from"
