"""However a program is stopped: one line, its exit code, nothing half-written, and no process that goes on alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from helpers import SMALL, write_params

from pipeline.core.ending import STARTERS
from tools.stage_code import ROOT

if not Path("/proc/self/status").exists():
    pytest.skip("needs /proc to see what a process is doing", allow_module_level=True)

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in STARTERS} | {"PYTHONPATH": str(ROOT)}
# each is a program that says 'ready' when it is where it is to be stopped
BLOCKED = "import time; print('ready', flush=True); time.sleep(60)"
IN_POOL = """
import time
from pipeline.core.cli import exit_on_user_error
from pipeline.probes.processes import in_processes

def job(number):
    if number == 1 and FIT:
        print("ready", flush=True)
        time.sleep(60)

def action():
    for _ in in_processes(job, 9):
        if not FIT:
            print("ready", flush=True)
            time.sleep(60)

exit_on_user_error(action)
"""
WRITING = f"""
from pathlib import Path
from pipeline.core.cli import exit_on_user_error
from pipeline.core.files import replacing
from pipeline.core.file_lock import locked

def action():
    with locked(Path("a.lock"), "busy"), replacing(Path("a.txt")) as temporary:
        temporary.write_text("half of it")
        {BLOCKED}

exit_on_user_error(action)
"""
SWALLOWED = f"""
from pipeline.core.cli import exit_on_user_error

def action():
    try:
        {BLOCKED}
    except BaseException:
        raise ImportError("half imported") from None

exit_on_user_error(action)
"""
PROGRAMS = {
    "while processes fit": IN_POOL.replace("FIT", "True"),
    "between results of processes": IN_POOL.replace("FIT", "False"),
    "while a file is written": WRITING,
    "in a library that makes another error of it": SWALLOWED,
}
STOPPED = [  # where the program is, whether all of its processes are told (as Ctrl-C does) or it alone, by which signal
    ("while processes fit", "all", signal.SIGINT),
    ("while processes fit", "it alone", signal.SIGTERM),
    ("between results of processes", "all", signal.SIGINT),
    ("between results of processes", "it alone", signal.SIGTERM),
    ("while a file is written", "all", signal.SIGINT),
    ("while a file is written", "all", signal.SIGTERM),
    ("in a library that makes another error of it", "all", signal.SIGINT),
]
SIGNALS = {signal.SIGINT: (130, "interrupted\n"), signal.SIGTERM: (143, "terminated\n")}

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs in a folder and a session of their own; nothing of them outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*command: str, environment: dict[str, str] = ENVIRONMENT) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        for pid in processes_of(process):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def processes_of(process: "subprocess.Popen[str]") -> list[int]:
    """What runs in the session that a process was started in."""
    found = []
    for each in psutil.process_iter():
        try:
            if os.getsid(each.pid) == process.pid and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(mask >> (number - 1) & 1)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stage_that_is_stopped_while_it_imports_says_one_word(number: int, start: Start) -> None:
    process = start(sys.executable, "-m", "pipeline.stages.extract")
    wait_until(lambda: handles(process.pid, signal.SIGTERM))
    process.send_signal(number)
    assert (process.communicate()[1], process.returncode) == SIGNALS[signal.Signals(number)][::-1]


@pytest.mark.parametrize(("where", "whom", "number"), STOPPED)
def test_a_stopped_program_says_one_word_and_leaves_nothing(
    where: str, whom: str, number: int, start: Start, tmp_path: Path
) -> None:
    process = start(sys.executable, "-c", PROGRAMS[where])
    assert process.stdout and process.stdout.readline() == "ready\n"
    (os.killpg if whom == "all" else os.kill)(process.pid, number)
    assert (process.communicate()[1], process.returncode) == SIGNALS[signal.Signals(number)][::-1]
    assert not processes_of(process)
    assert not list(tmp_path.iterdir())


def test_processes_that_fit_end_with_a_parent_that_is_killed(start: Start) -> None:
    process = start(sys.executable, "-c", PROGRAMS["while processes fit"])
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.kill()
    wait_until(lambda: not processes_of(process))


# what starts a stage of long work as DVC does: by itself, through a shell that stays, or by hand
STARTER = """
import os, subprocess, sys, time
subprocess.Popen(sys.argv[2:], env=os.environ | ({sys.argv[1]: "1"} if sys.argv[1] else {}))
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("variable", "shell", "ends"),
    [
        ("DVC_STAGE", [], True),
        ("DVC_STAGE", ["sh", "-c", '"$@"; true', "sh"], True),
        ("MAKELEVEL", ["sh", "-c", '"$@"; true', "sh"], True),
        ("TORCHELASTIC_RUN_ID", [], True),
        ("", ["sh", "-c", '"$@"; true', "sh"], False),
    ],
)
def test_a_stage_ends_with_the_tool_that_started_it_and_not_with_a_shell(
    variable: str, shell: list[str], ends: bool, start: Start, tmp_path: Path
) -> None:
    write_params(tmp_path, SMALL | {"model.source": "tiny", "model.tiny.steps": 10**6})
    stage = [*shell, sys.executable, "-m", "pipeline.stages.fetch_model"]
    starter = start(sys.executable, "-c", STARTER, variable, *stage)

    def stages() -> list[int]:
        return [pid for pid in processes_of(starter) if pid != starter.pid and handles(pid, signal.SIGTERM)]

    wait_until(lambda: bool(stages()))
    time.sleep(1)  # into its imports
    starter.kill()
    starter.wait()
    if ends:
        wait_until(lambda: not processes_of(starter))
    else:
        time.sleep(3)
        assert stages()


def test_what_a_killed_process_left_is_removed_when_the_file_is_written_again(tmp_path: Path) -> None:
    from pipeline.core.files import write_text

    gone = subprocess.Popen(["true"])
    gone.wait()
    alive = f".a.txt.{os.getppid()}.tmp"
    for name in (f".a.txt.{gone.pid}.tmp", alive, ".b.txt.1.tmp"):
        (tmp_path / name).touch()
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive, ".b.txt.1.tmp", "a.txt"])
