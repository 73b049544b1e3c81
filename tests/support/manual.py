"""The pages of the manual, their blocks of code, and the commands in them."""

import re
import shlex
from pathlib import Path

from tools.stage_code import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# how a command begins that is named in a line of text, unlike an error such as "git is missing"
_NAMED = re.compile(r"(?:[A-Z_]+=\S+ )?(?:(?:make|dvc|git|torchrun|hf|pip|pre-commit|python[\d.]*) (?!is )|runs/\S+ )")
_ENDS = {"&&", "||", ";", "|"}
_VARIABLE = re.compile(r"[A-Z_]+=.*")


def blocks(page: Path, language: str) -> list[str]:
    return [code for tag, code in BLOCK.findall(page.read_text()) if tag == language]


def commands(page: Path) -> list[list[str]]:
    """The commands of a page, as words: of its shell blocks, and those that are named in its text."""
    text = page.read_text()
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in SPAN.findall(BLOCK.sub("", text))]
    lines += [span for span in spans if _NAMED.match(span)]
    return [command for line in lines for command in split_line(line)]


def split_line(line: str) -> list[list[str]]:
    """The commands of a line, without comments and variables: `A=1 x && y # z` is x and y."""
    found: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in _ENDS:
            found.append([])
        elif found[-1] or not _VARIABLE.fullmatch(word):
            found[-1].append(word)
    return [command for command in found if command]


def module_of(command: list[str]) -> str | None:
    """The module that a command starts with -m, if it does; not a stage of any NAME."""
    if not (command[0].startswith("python") or command[0] == "torchrun") or "-m" not in command:
        return None
    module = command[command.index("-m") + 1]
    return None if module.endswith(".NAME") else module
