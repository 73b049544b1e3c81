"""The manual: links, modules, make targets and paths that its pages name are there."""

import importlib.util
import re
from pathlib import Path

import pytest

from tools.stage_code import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
MOST_LINES = 120  # of the front door
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MODULE = re.compile(r"\bpython[\d.]*\s+-m\s+([\w.]*\w)")
TARGET = re.compile(r"(?:^|`)make ([a-z]+)\b", re.MULTILINE)  # at the start of a line or of code: not the verb
PATH = re.compile(r"`((?:pipeline|runs|bench|tools|tests)/[^`\s]*)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page.read_text()))
    return {heading.strip().replace(" ", "-") for heading in words}


def is_module(name: str) -> bool:
    package = name.rpartition(".")[0]
    return (not package or is_module(package)) and importlib.util.find_spec(name) is not None


@each_page
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    wrong = []
    for link in LINK.findall(page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not link.startswith("https://") and not (target.exists() and (not anchor or anchor in headings(target))):
            wrong.append(link)
    assert wrong == []


@each_page
def test_modules_that_are_run_can_be_imported(page: Path) -> None:
    # NAME stands for any of a package's modules
    named = {module.removesuffix(".NAME") for module in MODULE.findall(page.read_text())}
    assert [module for module in sorted(named) if not is_module(module)] == []


@each_page
def test_make_has_the_targets_that_are_named(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall(page.read_text())) <= targets


@each_page
def test_paths_in_code_exist(page: Path) -> None:
    # NAME stands for any module
    named = PATH.findall(page.read_text())
    assert [path for path in named if not any(ROOT.glob(path.replace("NAME", "*")))] == []


def test_every_page_is_reached_from_the_front_door() -> None:
    reached = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert [page.name for page in PAGES[1:] if page not in reached] == []


def test_the_front_door_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (LINK.findall("[a](docs/a.md#b) and [c](../C.md)"), ["docs/a.md#b", "../C.md"]),
        (MODULE.findall("python -m bench.sae. python3.11 -m\n  venv x"), ["bench.sae", "venv"]),
        (TARGET.findall("make repro  # set up\nrun `make test`; use data to make figures"), ["repro", "test"]),
        (
            PATH.findall("`runs/local.sh DATA` and `tests/**/test_attacks_*.py`"),
            ["runs/local.sh", "tests/**/test_attacks_*.py"],
        ),
    ],
)
def test_what_counts_as_named(found: list[str], expected: list[str]) -> None:
    assert found == expected
