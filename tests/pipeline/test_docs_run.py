"""The code of the manual runs: Python blocks on a small run, and the commands that need neither network nor time."""

import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers import working_in
from manual import PAGES, blocks, commands, module_of
from small_run import POINT

from tools.stage_code import ROOT

RUN_AS_WRITTEN = {"python -m pipeline.params", "dvc dag"}  # what changes nothing and takes seconds
OPTION = re.compile(r"--?[a-z][\w-]*")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_blocks_run_one_after_the_other(page: Path, small_run: Path, tmp_path: Path) -> None:
    for name in ("data", "lm", "metrics", "models"):
        (tmp_path / name).symlink_to(small_run / name)
    names: dict[str, Any] = {}
    with working_in(tmp_path):
        for block in blocks(page, "python"):
            exec(compile(re.sub(r"\bresid_post\.\d+", POINT, block), str(page), "exec"), names)
    if page.stem == "library":  # which says so
        assert names["logit"] == pytest.approx(names["probe"].logit(names["x_TD"]))
        assert 0 < names["metrics"]["fvu"] < 1.5 and names["latents_NL"].shape == (len(names["own_acts_ND"]), 1024)


def programs() -> dict[str, set[str]]:
    """The project's own programs that the manual names, with the options that it gives them.

    Those of bench/ are left out: they import other libraries, and some need an environment of their own.
    """
    found: dict[str, set[str]] = {}
    for command in [command for page in PAGES for command in commands(page)]:
        module = module_of(command)
        if module and module.startswith(("pipeline.", "tools.")):
            name, words = f"python -m {module}", command[command.index(module) + 1 :]
        elif command[0].startswith("runs/"):
            name, words = command[0], command[1:]
        else:
            continue
        found.setdefault(name, set()).update(word for word in words if OPTION.fullmatch(word) and word != "-S")
    return found


def output_of(*command: str) -> str:
    words = [sys.executable if word == "python" else word for word in command]
    if words[0] == "dvc":
        words = [sys.executable, "-m", *words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def test_programs_of_the_manual_explain_themselves_and_know_its_options() -> None:
    wanted = programs()
    assert {"python -m pipeline.params", "python -m tools.export", "runs/local.sh"} < wanted.keys()
    with ThreadPoolExecutor(2) as pool:
        helps = pool.map(lambda name: output_of(*name.split(), "--help"), wanted)
    for (name, options), shown in zip(wanted.items(), helps, strict=True):
        assert shown and options <= set(OPTION.findall(shown)), name


def test_commands_that_change_nothing_run_as_written() -> None:
    written = {shlex.join(command) for page in PAGES for command in commands(page)}
    for command in sorted(RUN_AS_WRITTEN):
        assert command in written
        assert output_of(*command.split()) or command == "python -m pipeline.params"
