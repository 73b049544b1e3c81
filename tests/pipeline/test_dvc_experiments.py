"""The pipeline under DVC: experiments, a clean clone, params that are refused, and stages that are killed."""

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from dvc_project import POINT, SAE, Project
from helpers import dump_yaml, load_yaml, sample_rows, write_csv


def test_a_clean_clone_gives_the_same_bytes_and_runs_experiments(finished_project: Project, tmp_path: Path) -> None:
    finished_project.run("git", "clone", "-q", str(finished_project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    params = (clone.folder / "params.yaml").read_bytes()
    assert len(clone.ran("repro")) == 16, "all but those whose outputs are all in git are computed anew"
    assert clone.metrics() == finished_project.metrics()
    assert clone.run("git", "status", "--porcelain") == "", "dvc.lock and metrics are those of the commit"

    judging = ["check_params", "evaluate", "report"]
    assert sorted(clone.ran("exp", "run", "-n", "here", "-S", "evaluate.resamples=140")) == judging
    clone.run("git", "checkout", "-q", ".")
    clone.run("dvc", "checkout")
    assert sorted(clone.ran("exp", "run", "--temp", "-n", "temp", "-S", "evaluate.resamples=150")) == judging
    clone.run("runs/sae-sweep.sh", "--variant", SAE, "--k", "2,3", "--width", "24")
    ran = clone.ran("exp", "run", "--run-all")
    assert ran.count(f"train_sae@{POINT}-{SAE}") == 2 and "extract" not in ran
    assert (clone.folder / "params.yaml").read_bytes() == params
    listed = clone.run("dvc", "exp", "list", "--name-only").split()
    assert len(listed) == 4 and {"here", "temp"} < set(listed)

    clone.run("python", "-m", "tools.frontier")
    with (clone.folder / "report/figures/fvu_l0.csv").open() as file:
        found = {(int(row["width"]), round(float(row["l0"]))) for row in csv.DictReader(file)}
    assert {(24, 2), (24, 3)} < found, "and that of the committed run"
    assert (clone.folder / "report/figures/fvu_l0.png").read_bytes().startswith(b"\x89PNG")


def test_a_small_number_that_dvc_writes_is_a_number(project: Project) -> None:
    assert project.ran("exp", "run", "-S", f"++sae.variants.{SAE}.lr=1e-5", "check_params") == ["check_params"]
    assert "lr: 1e-05\n" in (project.folder / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("extract.points=[resid_post.40]", "extract.points.0 = 'resid_post.40' is not allowed: the model has 3 layers"),
        ("evaluate.confidence=95", "evaluate.confidence = 95 is not allowed: should be less than 1"),
        ("data.path=/dev/zero", "data.path = '/dev/zero' is not allowed: it is a device, not a file"),
    ],
)
def test_an_experiment_with_params_that_are_refused_costs_nothing(
    setting: str, expected: str, project: Project
) -> None:
    results = ["data", "metrics", "models", "report"]
    before = {path: path.stat().st_ino for name in results for path in (project.folder / name).rglob("*")}
    output = project.fails("dvc", "exp", "run", "-S", setting)
    assert f"error: params.yaml: {expected}" in output and "Traceback" not in output
    gone = {path.name for path, inode in before.items() if not path.exists() or path.stat().st_ino != inode}
    assert gone <= {"params_are_valid.txt", "points.json"}
    # the way back, or on: as before, or with a value that is allowed
    project.run("git", "restore", "params.yaml", "dvc.lock")
    assert project.ran("repro") == []
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(("where", "command"), [("variant", ["repro"]), ("point", ["exp", "run", "-S", "seed=1"])])
def test_names_in_params_yaml_reach_no_shell(where: str, command: list[str], project: Project) -> None:
    params = load_yaml(project.folder / "params.yaml")
    if where == "point":
        params["extract"]["points"] = [f"{POINT}; touch PWNED #"]
    else:
        params["sae"]["variants"]["x; touch PWNED #"] = params["sae"]["variants"][SAE]
        params["sae"]["train"] = ["x; touch PWNED #"]
    dump_yaml(project.folder / "params.yaml", params)
    assert "error: params.yaml: " in project.fails("dvc", *command)
    dry = project.run("dvc", "repro", "--dry", "--force")
    assert "> python -m pipeline.stages.train_sae\n" in dry and not re.search("^>.*PWNED", dry, re.MULTILINE)
    assert not (project.folder / "PWNED").exists()


def test_the_launcher_of_extract_is_not_part_of_what_dvc_compares(project: Project) -> None:
    before = project.metrics()
    (project.folder / "data/activations/tokens.parquet").unlink()
    output = project.run("dvc", "repro", "--force", "--single-item", "extract", LAUNCH="torchrun --nproc-per-node 2")
    assert "Running stage 'extract'" in output
    assert project.ran("repro") == []
    assert project.metrics() == before
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize("where", [["repro", "extract"], ["exp", "run", "--temp", "extract"]])
def test_an_extraction_that_is_killed_under_dvc_goes_on(project: Project, where: list[str]) -> None:
    write_csv(project.folder / "prompts.csv", sample_rows(2500))
    project.set(extract__shard_mb=1, extract__dtype="float32")
    project.commit("many shards")
    unfinished = project.folder / ".dvc/tmp/unfinished/activations"
    process = subprocess.Popen(
        ["dvc", *where],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not list(unfinished.glob("*/00002.safetensors")):
        assert process.poll() is None, "the extraction ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(unfinished.glob("*/00002.safetensors"))
    assert "going on with an earlier run" in project.run("dvc", *where)
    assert not list(unfinished.glob("*/*")), "pieces that have been published are gone"
