"""The index page: the answer in one sentence, the table of arms, and the figures."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.files import write_text


def verdict(difference: dict[str, float]) -> str:
    """What the figures allow to say of the SAE probe beside the dense one: better, worse, or neither shown."""
    if difference["low"] > 0:
        return "better than"
    if difference["high"] < 0:
        return "worse than"
    return "not shown to differ from"


def arm_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The arms of metrics/probes.json as rows for a table, best AUROC first."""
    rows = [
        {"name": arm if point == "text" else f"{arm} @ {point}"} | metrics
        for point, arms in results.items()
        for arm, metrics in arms.items()
    ]
    return sorted(rows, key=lambda row: -row["auroc"])


def write_index(path: Path, **content: Any) -> None:
    """Render the page; everything in `content` is escaped."""
    environment = Environment(
        loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    write_text(path, environment.get_template("index.html").render(content, verdict=verdict))
