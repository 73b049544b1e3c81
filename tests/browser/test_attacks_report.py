"""Names of sources that attack whoever looks, in plots, metrics and figures; and masses of sources, summed up."""

import csv
import json
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import SMALL, run_stage, write_params
from report_pages import BROWSE, POINT, VARIANT

from pipeline.core.files import write_metrics, write_rows
from pipeline.core.text import visible
from pipeline.prompts.sources import LISTED
from tools.stage_code import ROOT

# a text -> what a cell of a plot's CSV says instead
CELLS = {
    "ends the script of the page": (
        "</script><script>window.hacked=1</script>",
        "\u2039/script>\u2039script>window.hacked=1\u2039/script>",
    ),
    "makes the rest of the page a comment": ("<!--<script>", "\u2039!--\u2039script>"),
    "names a place of DVC's template": ("<DVC_METRIC_TITLE>", "\u2039DVC_METRIC_TITLE>"),
    "formula": ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
    "formula by plus": ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
    "formula by minus": ("-2+3", "'-2+3"),
    "formula by at": ("@SUM(A1)", "'@SUM(A1)"),
    "formula after spaces": ("  =1", "'=1"),
    "formula after a tab": ("\t=1", "'=1"),
    "formula after a line end": ("\r\n=1", "'=1"),
    "formula in wide characters": ("\uff1d1+1", "'\uff1d1+1"),
    "formula where cells end at semicolons": ("a; =1;b", "a;'=1;b"),
    "terminal escape": ("\x9b31mred \x1b[2J", "\u2039U+009B>31mred \u2039U+001B>[2J"),
    "turns the line around": ("\u202etxt.exe", "\u2039U+202E>txt.exe"),
    "several lines": ("one\ntwo", "one two"),
    "quotes and commas": ('"a",b', '"a",b'),
    "a dash within": ("well-known = a+b@c", "well-known = a+b@c"),
    "another script": ("日本語", "日本語"),
}
# download refuses sources with control characters or without an end
SOURCES = [text for text, _ in CELLS.values() if not any(category(letter) == "Cc" for letter in text)] + [
    "$x^{2",
    "[/red]",
    "👩\u200d👧",
    "\u0627\u0644",
    "a" * 200,
    "_nolegend_",
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("text", "cell"), CELLS.values(), ids=CELLS)
def test_a_text_in_a_plot_is_neither_a_script_nor_a_formula(tmp_path: Path, text: str, cell: str) -> None:
    write_rows(tmp_path / "plot.csv", ["source", "value"], [{"source": text, "value": -1}])
    assert rows_of(tmp_path / "plot.csv") == [{"source": cell, "value": "-1"}]


def test_numbers_in_a_plot_stay_numbers(tmp_path: Path) -> None:
    values = [-1, -0.5, float("-inf"), np.float32(-0.25), np.int64(-3)]
    write_rows(tmp_path / "plot.csv", ["value"], [{"value": value} for value in values])
    assert [float(row["value"]) for row in rows_of(tmp_path / "plot.csv")] == values


def test_names_in_metrics_are_visible_and_none_is_lost(tmp_path: Path) -> None:
    names = ["\x9b31m", "<U+009B>31m", "\x1b]0;title\x07", "a", "a ", "b" * 1000, "b" * 1001]
    write_metrics(tmp_path / "metrics.json", {"by_source": {name: number for number, name in enumerate(names)}})
    found = json.loads((tmp_path / "metrics.json").read_text())["by_source"]
    assert sorted(found.values()) == list(range(len(names)))
    assert list(found)[:3] == ["<U+001B>]0;title<U+0007>", "<U+009B>31m", "<U+009B>31m (2)"]
    assert all(name.isprintable() and len(name) <= 304 for name in found)


def explored(folder: Path, sources: list[str], prompts: int) -> Path:
    """A folder where explore has run on prompts of these sources, the first of which have most."""
    rows = [
        {"prompt": f"the prompt of number {number}", "source": sources[number % len(sources)], "cluster": number % 6}
        for number in range(prompts)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_params(folder, SMALL | {"data.path": "prompts.jsonl"})
    for stage in ("download", "filter", "explore"):
        run_stage(stage, folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of matplotlib, on stderr
        return explored(tmp_path_factory.mktemp("hostile"), SOURCES, 7 * len(SOURCES))


def test_every_hostile_source_has_a_row_of_its_own(hostile: Path) -> None:
    rows = rows_of(hostile / "metrics/plots/source_by_cluster.csv")
    prompts: Counter[str] = Counter()
    for row in rows:
        prompts[row["source"]] += int(row["prompts"])
    assert set(prompts.values()) == {7} and len(prompts) == len(SOURCES)


def test_the_page_that_dvc_makes_of_plots_runs_nothing(hostile: Path, tmp_path: Path, browser: Any) -> None:
    shutil.copytree(hostile / "metrics", tmp_path / "metrics")
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    (tmp_path / ".dvc/config").touch()
    (tmp_path / ".dvc/config.local").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    plots = [plot for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] if "source" in str(plot)]
    assert len(plots) == 2
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"plots": plots, "metrics": ["metrics/filter.json"]}))

    def dvc(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    dvc("plots", "show")
    page = browser.new_page()
    asked: list[str] = []
    page.route("http*://**", lambda route: route.abort())
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.goto(f"file://{tmp_path}/dvc_plots/index.html")
    assert page.evaluate("typeof window.hacked") == "undefined" and asked == []
    # of the page itself, and one a plot
    assert page.locator("script:not([src])").count() == len(plots)
    text = page.content()
    assert "\\u2039/script>" in text and "'=HYPERLINK(" in text and "\\u65e5\\u672c\\u8a9e" in text
    page.close()
    printed = dvc("metrics", "show")
    assert "<U+202E>txt.exe" in printed and visible(printed) == printed


def test_masses_of_sources_are_summed_up(tmp_path: Path) -> None:
    sources = [f"source {number}" for number in range(2_500)]
    folder = explored(tmp_path, [*sources[:40], *sources], 6_000)
    raw = pq.read_table(folder / "data/raw/prompts.parquet")
    counts = Counter(zip(raw["source"].to_pylist(), raw["cluster"].to_pylist(), strict=True))
    rows = rows_of(folder / "metrics/plots/source_by_cluster.csv")
    names = yaml.safe_load((folder / "params.yaml").read_text())["data"]["clusters"]
    assert len(rows) == (LISTED + 1) * len(names)
    listed = set(list(dict.fromkeys(row["source"] for row in rows))[:-1])
    for row in rows:
        cluster = names.index(row["cluster"])
        of_row = (
            counts[row["source"], cluster]
            if row["source"] in listed
            else sum(count for (source, other), count in counts.items() if source not in listed and other == cluster)
        )
        assert int(row["prompts"]) == of_row
    assert rows[-1]["source"] == "2,470 other sources"
    by_source = Counter(raw["source"].to_pylist())
    assert min(by_source[source] for source in listed) >= max(by_source[source] for source in set(sources) - listed)
    lengths = [row["characters"] for row in rows_of(folder / "metrics/plots/mean_length.csv")]
    assert len(lengths) == len(rows) and all(20 < float(length) < 30 for length in lengths if length)
    for name in ("source_by_cluster", "mean_length"):
        assert (folder / f"report/figures/{name}.png").stat().st_size < 2**20


def test_the_page_of_the_prompt_set_lists_the_largest_sources_and_all_others(report: Path) -> None:
    kept = json.loads((report.parent / "metrics/filter.json").read_text())["kept_by_source"]
    others = sum(sorted(kept.values())[:-LISTED])
    assert len(kept) > LISTED + 5
    page = (report / "data.html").read_text()
    assert f'<tr><th scope="row">{len(kept) - LISTED} other sources</th><td>{others}</td>' in page
    assert page.count(">small/") < len([source for source in kept if source.startswith("small/")])


def test_the_page_of_a_latent_lists_the_largest_sources_and_all_others(report: Path) -> None:
    folder = report.parent / "data/latents" / POINT / VARIANT
    meta = json.loads((folder / "meta.json").read_text())
    rates = np.stack(pq.read_table(folder / "latents.parquet")["source_rates"].to_numpy())
    index, rows = (
        json.loads((report / BROWSE / f"data/{name}.js").read_text()[len(f'receive("{name}",') : -3])
        for name in ("latents", "latents-0")
    )
    kept = sorted(json.loads((report.parent / "metrics/filter.json").read_text())["kept_by_source"].values())
    expected = [*reversed(kept[-LISTED:]), sum(kept[:-LISTED])]
    assert index["counts"]["sources"] == meta["counts"]["sources"] == expected
    assert len(index["sources"]) == rates.shape[1] == LISTED + 1, "also in the table, which has a row for each latent"
    for number, row in enumerate(rows):
        assert row["sources"] == pytest.approx(rates[number], rel=0.02, abs=0.005)
