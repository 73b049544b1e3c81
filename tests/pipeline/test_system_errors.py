"""What the operating system refuses is one line that names the file; what is a bug keeps its traceback."""

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import SMALL, run_stage_error, sample_rows, write_csv, write_params
from safetensors import SafetensorError

from pipeline.core.cli import exit_on_user_error
from pipeline.core.errors import UserError
from pipeline.core.files import read_table, write_table
from tools.stage_code import ROOT

OUTPUT = "data/raw/prompts.parquet"


@contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def nothing(_: Path) -> None:
    pass


def in_the_way(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("in the way")

    return make


def folder_in_the_way(folder: Path) -> None:
    (folder / OUTPUT).mkdir(parents=True)


def loop(folder: Path) -> None:
    (folder / "data/raw").symlink_to("raw")


# what is done to the folder, what limit the process has, what params say; how the line starts and what is in it
REFUSED: dict[str, tuple[Callable[[Path], None], Any, dict[str, Any], str, str]] = {
    "a file where a folder is wanted": (in_the_way("data/raw"), None, {}, "data/raw ", "where a folder is wanted"),
    "a folder where a file is wanted": (folder_in_the_way, None, {}, OUTPUT, "where a folder is wanted"),
    "a link to itself": (loop, None, {}, "data/raw ", "where a folder is wanted"),
    "a limit on files": (nothing, (resource.RLIMIT_FSIZE, 1000), {}, OUTPUT, "raise the limit (ulimit -f)"),
    "a limit on open files": (nothing, (resource.RLIMIT_NOFILE, 0), {}, "params.yaml", "raise the limit (ulimit -n)"),
    "a name that is too long": (nothing, None, {"data.path": f"{'x' * 300}.csv"}, "params.yaml", "File name too long"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_csv(tmp_path / "prompts.csv", sample_rows(500))
    write_params(tmp_path, SMALL)
    return tmp_path


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_system_refuses_a_stage_is_one_line_with_the_file(case: str, folder: Path) -> None:
    prepare, limits, changes, start, remedy = REFUSED[case]
    write_params(folder, SMALL | changes)
    prepare(folder)
    with limit(*limits) if limits else limit(resource.RLIMIT_CORE, 0):
        line = run_stage_error("download", folder)
    assert line.startswith(start) and remedy in line
    assert not list(folder.rglob("*.tmp"))


# what no test can have the system do, at the place where it does it
NUMBERS = {
    errno.EACCES: "change its owner or mode",
    errno.EPERM: "change its owner or mode",
    errno.EROFS: "read-only",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EIO: "disk or network file system fails",
    errno.ESTALE: "disk or network file system fails",
    errno.ENFILE: "too many files",
    errno.ENOLCK: "no locks",
    errno.EBUSY: "is in use",
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_every_refusal_names_the_file_and_a_remedy(call: str, number: int, folder: Path) -> None:
    with mock.patch(f"pipeline.core.files.os.{call}", side_effect=OSError(number, os.strerror(number))):
        line = run_stage_error("download", folder)
    assert line.startswith(f"{OUTPUT} ") and NUMBERS[number] in line
    assert not list(folder.glob("data/raw/*"))


def wrapped(error: Exception) -> Callable[[], None]:
    """Raises RuntimeError as a library does that caught `error`."""

    def action() -> None:
        try:
            raise error
        except Exception as caught:
            raise RuntimeError("cannot save") from caught

    return action


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


LINES: dict[str, tuple[Callable[[], object], str]] = {
    "numpy": (lambda: np.empty(1 << 50), "out of memory (Unable to allocate"),
    "torch": (lambda: torch.empty(1 << 60), "out of memory ("),
    "arrow": (lambda: pa.allocate_buffer(1 << 60), "out of memory ("),
    "python": (lambda: bytearray(1 << 60), "out of memory: lower extract.batch_tokens"),
    "a GPU": (raising(torch.OutOfMemoryError("CUDA out of memory. Tried")), "out of memory (CUDA"),
    "fork": (raising(OSError(errno.ENOMEM, "Cannot allocate memory")), "out of memory ("),
    "no process": (raising(BlockingIOError(errno.EAGAIN, "try again")), "no more processes"),
    "no thread": (raising(RuntimeError("can't start new thread")), "no more processes or threads"),
    "safetensors": (raising(SafetensorError("I/O error: File too large (os error 27)")), "a file of the project is la"),
    "arrow's text": (raising(pa.ArrowException("[errno 28] No space left")), "a file of the project has no room"),
    "a cause": (wrapped(OSError(errno.EACCES, "Permission denied", "x\x1b[31m.txt")), r"x\x1b[31m.txt may not be read"),
    "no end": (raising(UserError("x" * 10**7 + ": do this")), "x" * 400),
    "escapes": (raising(UserError("a\x1b[31m\u202e\n\u2028b\ud800")), r"a\x1b[31m\u202e \u2028b\ud800"),
}


def line_of(action: Callable[[], object]) -> str:
    stderr = io.StringIO()
    with redirect_stderr(stderr), pytest.raises(SystemExit) as exit_info:
        exit_on_user_error(action)
    assert exit_info.value.code == 2
    assert stderr.getvalue().startswith("error: ") and stderr.getvalue().count("\n") == 1
    return stderr.getvalue().removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize("case", LINES)
def test_whatever_a_library_makes_of_it_is_one_short_line_without_escapes(case: str) -> None:
    action, start = LINES[case]
    line = line_of(action)
    assert line.startswith(start)
    assert line.isprintable() and len(line) < 1100
    assert case != "no end" or line.endswith(": do this")


def in_place_of(error: Exception) -> Callable[[], None]:
    """A bug where an error of the system was dealt with."""

    def action() -> None:
        try:
            raise OSError(errno.EACCES, "Permission denied")
        except OSError:
            raise error from None

    return action


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (raising(KeyError("errno")), KeyError),
        (raising(OSError(errno.EINVAL, "Invalid argument")), OSError),
        (raising(FileNotFoundError(errno.ENOENT, "No such file", "x")), FileNotFoundError),
        (raising(OSError("not a file that this library knows")), OSError),
        (in_place_of(KeyError("point")), KeyError),
        (raising(SystemExit(7)), SystemExit),
    ],
)
def test_a_bug_keeps_its_traceback(action: Callable[[], object], kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        exit_on_user_error(action)


def test_a_whole_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", pa.table({"a": [1]}))
    with limit(resource.RLIMIT_NOFILE, 0):
        line = line_of(lambda: read_table(tmp_path / "a.parquet"))
    assert "ulimit -n" in line and "damaged" not in line


WITH_LITTLE_MEMORY = """
import resource
from pathlib import Path
from pipeline.stages.run import run_stage
from pipeline.stages import download
import pipeline.params.root, pipeline.stages.timings
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000,) * 2)
run_stage(download.main, "")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see how much memory is used")
def test_a_stage_without_memory_says_what_to_lower(folder: Path) -> None:
    write_csv(folder / "prompts.csv", [{"prompt": "x" * 40_000, "source": "s", "cluster": 1}] * 2000)
    result = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: out of memory") and "filter.max_prompts" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_ENDPOINT", "http://[::1"), ("HF_HUB_DOWNLOAD_TIMEOUT", "x"), ("HF_HUB_ETAG_TIMEOUT", "10s")],
)
def test_what_libraries_cannot_read_of_the_environment_is_one_line(name: str, value: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stages.extract"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith(f"error: {name} = "), done.stderr
    assert done.stderr.count("\n") == 1
