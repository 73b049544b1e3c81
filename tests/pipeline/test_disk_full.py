"""A disk that is full or read-only: one line, exit code 2, no half-written file, and earlier files as they were."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import SMALL, sample_rows, write_csv, write_params

from tools.stage_code import ROOT

# mounts a small file system of its own over DISK, in a namespace that ends with the command
IN_SMALL_DISK = 'mount -t tmpfs -o size=2m tmpfs "$DISK" && cp -r "$SOURCE"/. "$DISK" && cd "$DISK" && '


def in_small_disk(source: Path, disk: Path, command: str) -> "subprocess.CompletedProcess[str]":
    disk.mkdir(exist_ok=True)
    environment = os.environ | {"DISK": str(disk), "SOURCE": str(source), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_SMALL_DISK + command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ("head -c 9m /dev/zero > filler", "data/raw/prompts.parquet has no room: its disk is full"),
        ('mount -o remount,ro "$DISK"', "data/raw/prompts.parquet is on a file system that is read-only"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_line_and_loses_nothing(spoil: str, expected: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if not shutil.which("unshare") or in_small_disk(source, tmp_path / "disk", "true").returncode:
        pytest.skip("this machine does not allow a small disk of one's own (unshare, mount)")
    write_csv(source / "prompts.csv", sample_rows(2000))
    write_params(source, SMALL)
    stage = f"'{sys.executable}' -m pipeline.stages.download"
    result = in_small_disk(
        source,
        tmp_path / "disk",
        f"{stage} && md5sum data/raw/prompts.parquet > before && {{ {spoil}; "
        f"{stage}; echo exit $?; md5sum -c before; ls -A data/raw; }}",
    )
    files = ["benign.parquet", "prompts.parquet"]
    assert result.stdout.split() == ["exit", "2", "data/raw/prompts.parquet:", "OK", *files], result
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0] and "Traceback" not in result.stderr, result.stderr
