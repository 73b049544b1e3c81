"""The manual: what its pages name is there, its commands can be parsed, and its figures are those of metrics/."""

import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from helpers import load_yaml
from manual import BLOCK, PAGES, blocks, commands, module_of, split_line

from tools.stage_code import ROOT

MOST_LINES = 120  # of the front door
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PATH = re.compile(r"`((?:pipeline|runs|bench|tools|tests|examples)/[^`\s]*)")
KNOWN = {"git restore", "hf auth", "pre-commit install", "python -m", "make PYTHON=/path/to/python3.11"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

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
def test_paths_in_code_exist(page: Path) -> None:
    # NAME stands for any module
    named = PATH.findall(page.read_text())
    assert [path for path in named if not any(ROOT.glob(path.replace("NAME", "*")))] == []


@each_page
def test_blocks_of_code_say_what_they_are(page: Path) -> None:
    assert {language for language, _ in BLOCK.findall(page.read_text())} <= {"python", "sh", "text"}


@each_page
def test_commands_can_be_parsed_and_name_what_exists(page: Path) -> None:
    wrong = {" ".join(command): fault for command in commands(page) if (fault := fault_of(command))}
    assert wrong == {}


def fault_of(command: list[str]) -> str | None:
    """What is wrong with a command, as far as that can be told without running it."""
    program, *words = command
    if program == "make":
        return fault_of_make(words)
    if program == "dvc":
        return fault_of_dvc(words)
    if program.startswith("runs/"):
        script = ROOT / program
        return None if script.is_file() and script.stat().st_mode & 0o100 else "no script that can be run"
    if module := module_of(command):
        return None if is_module(module) else "no such module"
    if program == "pip":
        extras = {extra for word in words for found in re.findall(r"\[(.+)\]", word) for extra in found.split(",")}
        return None if extras <= PROJECT["optional-dependencies"].keys() else "no such extra"
    if program == "source":
        return None if words[0].endswith("/bin/activate") else "nothing that is made here"
    is_known = " ".join(command[:2]) in KNOWN or "NAME" in command[-1]
    return None if is_known else "a program that this test does not know"


def fault_of_make(words: list[str]) -> str | None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return None if set(words) <= targets or words == ["PYTHON=/path/to/python3.11"] else "no such target"


def fault_of_dvc(words: list[str]) -> str | None:
    try:
        arguments = get_main_parser().parse_args(words)
    except DvcParserError:
        is_group = not any(word.startswith("-") for word in words) and has_help(words)
        return None if is_group else "dvc does not know that"
    targets = getattr(arguments, "targets", None) or []
    stages = load_yaml(ROOT / "dvc.yaml")["stages"]
    missing = [target for target in targets if target not in stages and not (ROOT / target).exists()]
    return f"{missing} are neither stages nor files" if missing else None


def has_help(words: list[str]) -> bool:
    """Whether these words are a group of dvc's commands, such as `dvc exp`."""
    try:
        get_main_parser().parse_args([*words, "--help"])
    except DvcParserError:
        return False
    except SystemExit as ended:
        return ended.code == 0
    return False


def test_make_can_plan_the_targets_of_the_manual() -> None:
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    targets = {command[1] for page in PAGES for command in commands(page) if command[0] == "make" and len(command) == 2}
    subprocess.run([program, "--dry-run", *sorted(targets)], cwd=ROOT, check=True, capture_output=True)


def test_every_page_is_reached_from_the_front_door() -> None:
    reached = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert [page.name for page in PAGES[1:] if page not in reached] == []


def test_the_front_door_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


def test_the_figures_of_the_front_door_are_those_of_the_committed_run() -> None:
    page = (ROOT / "README.md").read_text()
    summary = json.loads((ROOT / "metrics/summary.json").read_text())
    dense, latents, paired = (
        summary[f"{name}"] for name in ("dense_minus_tfidf", "sae_minus_tfidf", "sae_minus_dense")
    )
    verdicts = [each["verdict"] for each in summary["contrasts"].values()]
    shown = len(verdicts) - verdicts.count("not shown")
    for row in (
        f"| {summary['tfidf_auroc']} | |",
        f"| {summary['dense_auroc']} | {dense['difference']} ({dense['low']} to {dense['high']}) |",
        f"| {summary['sae_auroc']} | {latents['difference']} ({latents['low']} to {latents['high']}) |",
        f"SAE minus dense is {paired['difference']} ({paired['low']} to {paired['high']}, p = {paired['p_value']}).",
        f"one of {len(verdicts)} differences that were declared beforehand; corrected for their number, {shown} are",
        f"`{summary['sae_point']}`",
        f"on {summary['test_prompts']} test\nprompts of which {summary['test_targets']} are of the target",
    ):
        assert row in page


def test_the_changelog_and_the_citation_are_of_the_package_version() -> None:
    released = re.findall(r"^## \[(\d.+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = load_yaml(ROOT / "CITATION.cff")
    assert released[0] == (PROJECT["version"], str(citation["date-released"]))
    assert citation["version"] == PROJECT["version"]
    assert [date for _, date in released] == sorted((date for _, date in released), reverse=True)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (LINK.findall("[a](docs/a.md#b) and [c](../C.md)"), ["docs/a.md#b", "../C.md"]),
        (split_line("A=1 make x && dvc repro 'a b'  # c"), [["make", "x"], ["dvc", "repro", "a b"]]),
        (module_of(split_line("torchrun --nnodes 2 -m bench.sae")[0]), "bench.sae"),
        (module_of(split_line("python -m pipeline.stages.NAME")[0]), None),
        (
            PATH.findall("`runs/local.sh DATA` and `tests/**/test_attacks_*.py`"),
            ["runs/local.sh", "tests/**/test_attacks_*.py"],
        ),
        ([fault_of(words.split()) for words in ("make repro", "make nothing")], [None, "no such target"]),
        (
            [fault_of(words.split()) for words in ("dvc exp", "dvc repro split", "dvc rerpo", "dvc repro --al")],
            [None, None, "dvc does not know that", "dvc does not know that"],
        ),
        (fault_of(["dvc", "repro", "spilt"]), "['spilt'] are neither stages nor files"),
        (fault_of(["rm", "-rf", "data"]), "a program that this test does not know"),
    ],
)
def test_what_counts_as_named_and_as_wrong(found: object, expected: object) -> None:
    assert found == expected


def test_blocks_are_found_by_their_language(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Run `make repro` or `dvc`:\n\n```sh\nmake \\\n  test\n```\n\n```python\nx = `1`\n```\n")
    assert blocks(page, "python") == ["x = `1`\n"]
    assert commands(page) == [["make", "test"], ["make", "repro"]]
