"""An extraction goes on where it was stopped, never with what belongs to another one, in one process or several."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import SMALL, run_stage, run_stage_error, sample_rows, save_small_model, write_csv, write_params

from tools.stage_code import ROOT

PARAMS = SMALL | {"extract.shard_mb": 1, "extract.dtype": "float32", "extract.points": ["resid_post.1", "mlp_out.0"]}
STAGE = ["-m", "pipeline.stages.extract"]
KILLS = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where all is ready for extract, which takes some 20 shards."""
    folder = tmp_path_factory.mktemp("made")
    save_small_model(folder / "lm", width=128)
    write_csv(folder / "prompts.csv", sample_rows(2500))
    write_params(folder, PARAMS)
    for stage in ("download", "filter", "fetch_model"):
        run_stage(stage, folder)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run that nothing interrupted, by one process of one thread."""
    folder = tmp_path_factory.mktemp("expected") / "work"
    shutil.copytree(made, folder)
    finish(start(folder))
    return files(folder)


def start(folder: Path, *command: str) -> "subprocess.Popen[str]":
    """Start the stage as a program; one thread, so that launchers make no difference."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *(command or STAGE)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def kill(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def files(folder: Path) -> dict[str, str]:
    """sha256 of all that the stage leaves."""
    found = [*(folder / "data/activations").rglob("*"), folder / "metrics/extract.json"]
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in found
        if file.is_file()
    }


def pieces(folder: Path) -> Path:
    return folder / "data/.activations.unfinished"


def done(folder: Path) -> dict[str, int]:
    """The finished shards of every point that wait to be published, and their inodes."""
    finished = {file.name for file in pieces(folder).glob("*/*.safetensors")}
    shards = [file for file in pieces(folder).glob("*/*/*.safetensors") if file.name in finished]
    return {f"{file.parent.name}/{file.name}": file.stat().st_ino for file in shards}


def wait_for(folder: Path, process: "subprocess.Popen[str]", shards: int) -> None:
    """Wait until that many shards are done or the process has ended."""
    while len(done(folder)) < 2 * shards and process.poll() is None:
        time.sleep(0.005)


def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(work: Path, expected: dict[str, str]) -> None:
    assert len(expected) > 30
    rng = random.Random(0)
    kills = resumed = 0
    while kills < KILLS:
        before = done(work)
        process = start(work)
        wait_for(work, process, len(before) // 2 + rng.randrange(6))
        time.sleep(rng.random() / 10)
        if process.poll() is None:
            kill(process)
            kills += 1
            resumed += bool(before)
            if not (work / "data/activations").exists():  # else it was about to end, and links take the pieces' place
                assert before.items() <= done(work).items(), "a finished shard was computed again"
        else:
            assert files(work) == expected
            shutil.rmtree(work / "data/activations")
    before = done(work)
    output = finish(start(work))
    assert files(work) == expected
    published = {f"{file.parent.name}/{file.name}": file.stat().st_ino for file in work.rglob("*.safetensors")}
    assert before.items() <= published.items(), "finished shards are linked, not copied"
    assert ("going on with an earlier run" in output) == bool(before)
    assert resumed > KILLS / 3
    assert not pieces(work).exists()


@pytest.mark.parametrize("moment", ["os.link", "shutil.rmtree"])
def test_stopped_while_it_publishes_it_ends_with_the_same_bytes(
    work: Path, expected: dict[str, str], moment: str
) -> None:
    program = f"""
import os, shutil, sys
import {moment.split(".")[0]} as module
original, calls = {moment}, []
def stopped(*args, **kwargs):
    calls.extend(args[:1] if "unfinished" in str(args[0]) else ())
    if "unfinished" in str(args[0]) and len(calls) == {5 if moment == "os.link" else 1}:
        if {moment!r} == "shutil.rmtree":
            original(args[0] / "resid_post.1")
        os._exit(9)
    return original(*args, **kwargs)
setattr(module, {moment.split(".")[1]!r}, stopped)
sys.argv = ["extract"]
import runpy
runpy.run_module("pipeline.stages.extract", run_name="__main__")
"""
    process = start(work, "-c", program)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 9, output
    finish(start(work))
    assert files(work) == expected
    assert not pieces(work).exists()


def test_pieces_of_other_params_data_or_models_are_never_used(work: Path) -> None:
    for change in ("nothing", "params", "data", "model"):
        process = start(work)
        wait_for(work, process, 3)
        kill(process)
        assert done(work)
        if change == "params":
            write_params(work, PARAMS | {"extract.max_tokens": 63})
        elif change == "data":
            write_csv(work / "prompts.csv", sample_rows(2490))
            run_stage("download", work)
            run_stage("filter", work)
        elif change == "model":
            save_small_model(work / "lm", width=128, seed=1)
            run_stage("fetch_model", work)
        output = finish(start(work))
        assert ("going on with an earlier run" in output) == (change == "nothing"), change
        assert not pieces(work).exists()


def test_pieces_of_other_code_are_never_used(work: Path) -> None:
    process = start(work)
    wait_for(work, process, 3)
    kill(process)
    code = work / "code"
    shutil.copytree(ROOT / "pipeline", code / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "pipeline/lm/forward.py").open("a") as file:
        file.write("# changed\n")
    result = subprocess.run(
        [sys.executable, *STAGE],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "going on" not in result.stderr


def test_a_second_writer_is_refused(work: Path) -> None:
    process = start(work)
    wait_for(work, process, 1)
    os.killpg(process.pid, signal.SIGSTOP)
    line = run_stage_error("extract", work)
    os.killpg(process.pid, signal.SIGCONT)
    assert line.startswith("another process is extracting to data/activations: wait for it to end, or stop it, then ")
    finish(process)
    assert not pieces(work).exists()


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *STAGE)


def test_two_processes_give_the_bytes_of_one(work: Path, expected: dict[str, str]) -> None:
    finish(start(work, *TORCHRUN))
    assert files(work) == expected
    assert not pieces(work).exists()


def test_when_one_of_two_processes_dies_the_other_ends_and_the_rest_can_be_done_later(
    work: Path, expected: dict[str, str]
) -> None:
    process = start(work, *TORCHRUN)
    wait_for(work, process, 3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL)" in output
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    before = done(work)
    assert before
    assert "going on with an earlier run" in finish(start(work, *TORCHRUN))
    assert files(work) == expected
    published = {f"{file.parent.name}/{file.name}": file.stat().st_ino for file in work.rglob("*.safetensors")}
    assert before.items() <= published.items()
