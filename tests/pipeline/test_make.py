"""The Makefile: what is missing on a machine is one clear line, before anything is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.stage_code import ROOT

TOOLS = ["bash", "sh", "awk", "df", "grep", "sed", "expand", "touch", "echo", "cat", "git"]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A copy of the set-up files, and bin/ with a few tools and a python3 that has everything."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (tmp_path / "bin" / tool).symlink_to(found)
    stub(tmp_path, "python3", 'case "$*" in *" venv "*) echo "made $3"; exit 9;; esac')
    return tmp_path


def stub(machine: Path, tool: str, script: str) -> None:
    path = machine / "bin" / tool
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(machine: Path, *targets: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        [program, *targets],
        cwd=machine,
        env=environment | {"PATH": str(machine / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def error_of(machine: Path) -> str:
    result = make(machine, "setup")
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, result.stderr
    assert not (machine / ".venv").exists()
    return lines[0]


def test_a_missing_git(machine: Path) -> None:
    (machine / "bin/git").unlink()
    assert error_of(machine).startswith("error: git is missing: install it")


def test_an_old_or_missing_python(machine: Path) -> None:
    stub(machine, "python3", 'case "$2" in *version_info*) exit 1;; esac')
    assert error_of(machine).startswith("error: Python 3.11 or newer is missing")
    (machine / "bin/python3").unlink()
    assert error_of(machine).startswith("error: Python 3.11 or newer is missing")


def test_a_python_without_venv(machine: Path) -> None:
    stub(machine, "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    assert error_of(machine).startswith("error: python3 -m venv is missing: install it (Debian: apt install")


def test_a_disk_without_room(machine: Path) -> None:
    stub(machine, "df", 'printf "Filesystem 1024-blocks Used Available\\nx 1 1 1000000\\n"')
    assert error_of(machine).startswith("error: 0 GB free on this disk, 5 GB are needed")


def test_with_everything_there_the_environment_is_made(machine: Path) -> None:
    assert "made .venv" in make(machine, "setup").stdout


def test_nothing_is_installed_again_until_the_pins_change(machine: Path) -> None:
    (machine / ".venv").mkdir()
    (machine / ".venv/.installed").touch()
    assert make(machine, "setup").returncode == 0
    newer = (machine / ".venv/.installed").stat().st_mtime + 5
    os.utime(machine / "constraints.txt", (newer, newer))
    assert "made .venv" in make(machine, "setup").stdout


def test_help_lists_the_targets(machine: Path) -> None:
    listed = make(machine).stdout
    assert all(f"make {target}" in listed for target in ("setup", "repro", "test", "lint"))
