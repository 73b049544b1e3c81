"""Pages from templates: everything that is put into one is escaped, and what cannot be seen is made visible."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.core.files import write_text
from pipeline.core.text import visible
from pipeline.report.plots import Plot


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render pipeline/report/templates/`template`; every text in `content` is made visible and escaped.

    `root` in a template is the way from the page to report/.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_seen,
    )
    environment.filters |= {"signed": signed, "figure": figure, "percent": percent}
    write_text(path, environment.get_template(template).render(content, verdict=verdict))


def _seen(value: Any) -> Any:
    # what a macro has made is HTML, and the texts in it were made visible there
    return value if hasattr(value, "__html__") else visible(str(value))


def pictures(plots: Mapping[str, Plot], folder: str = "") -> list[dict[str, str]]:
    """What the macro of templates/figures.html shows: files below report/figures, and what is said below them."""
    return [{"file": f"{folder}{name}.png", "caption": plot.caption or plot.title} for name, plot in plots.items()]


def figure(value: float | None, form: str = "{:.3f}") -> str:
    """A figure with three decimals, or that there is none."""
    return "none" if value is None else form.format(value)


def percent(value: float | None) -> str:
    return figure(None if value is None else 100 * value, "{:.1f} %")


def signed(value: float | None) -> str:
    return figure(value, "{:+.3f}")


def verdict(difference: Mapping[str, Any]) -> str:
    """What the figures allow to say of one arm beside another: better, worse, or neither shown.

    Of a declared contrast it is the verdict after correction for their number, of another difference its interval.
    """
    if "verdict" in difference:
        return {"better": "better than", "worse": "worse than"}.get(difference["verdict"], "not shown to differ from")
    if difference["low"] > 0:
        return "better than"
    if difference["high"] < 0:
        return "worse than"
    return "not shown to differ from"
