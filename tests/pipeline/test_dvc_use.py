"""The pipeline under DVC, as its users drive it: only what a change invalidates runs again."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import SMALL, dump_yaml, load_yaml, sample_rows, save_small_model, write_csv, write_params

from pipeline.report.plots import PLOTS
from tools.stage_code import ROOT

SAE, POINT = "batch_topk", "resid_post.1"
OF_SAE = [f"{stage}@{POINT}-{SAE}" for stage in ("probe_sae", "intervene", "explain")]
PROBES = ["probe_text", f"probe_dense@{POINT}", *OF_SAE, "evaluate", "report"]


class Project:
    """A git repository with the project's code and a small configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DVC_ROOT")}
        environment |= {
            f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        return environment

    def run(self, *command: str, **variables: str) -> str:
        """Run a command in the project's environment; return what it printed."""
        code, output = self._run(*command, **variables)
        assert code == 0, f"{command}\n{output[-6000:]}"
        return output

    def fails(self, *command: str) -> str:
        """Run a command that must fail; return what it printed."""
        code, output = self._run(*command)
        assert code != 0, f"{command}\n{output[-6000:]}"
        return output

    def _run(self, *command: str, **variables: str) -> tuple[int, str]:
        environment = self.environment() | variables
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def ran(self, *command: str, **variables: str) -> list[str]:
        """Run a dvc command; return the stages that it ran, not those that it skipped or restored."""
        return re.findall(r"Running stage '([^']+)'", self.run("dvc", *command, **variables))

    def set(self, **changes: object) -> None:
        params = load_yaml(self.folder / "params.yaml")
        for key, value in changes.items():
            *section, name = key.split("__")
            (params[section[0]] if section else params)[name] = value
        dump_yaml(self.folder / "params.yaml", params)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def metrics(self) -> dict[str, bytes]:
        files = sorted(file for file in (self.folder / "metrics").rglob("*") if file.is_file())
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has been run, by runs/local.sh, and committed."""
    folder = tmp_path_factory.mktemp("dvc")
    project = Project(folder / "project")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if not name.startswith(("metrics/", "dvc.lock", "tests/")) and (ROOT / name).is_file():
            (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project.folder / name)
    save_small_model(folder / "lm")
    write_csv(project.folder / "prompts.csv", sample_rows(600))
    write_params(project.folder, SMALL | {"data.source": "sample", "model.source": "tiny"})
    project.run("git", "init", "-q", "-b", "main")
    project.commit("the project")
    script = project.run("runs/local.sh", "prompts.csv", str(folder / "lm"), "-S", "evaluate.resamples=120")
    assert len(re.findall("Running stage", script)) == 17
    params = load_yaml(project.folder / "params.yaml")
    assert params["model"] | {"source": "local", "path": str(folder / "lm")} == params["model"]
    assert params["evaluate"]["resamples"] == 120
    # as in the repository, so that a clone finds it
    project.set(data__path="prompts.csv")
    project.ran("repro")
    project.commit("its first run")
    return project


@pytest.fixture
def project(base: Project, tmp_path: Path) -> Project:
    shutil.copytree(base.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def test_what_has_not_changed_does_not_run(project: Project) -> None:
    assert project.ran("repro") == []
    assert project.run("git", "status", "--porcelain") == ""


def test_a_probes_param_reruns_only_probes_onward_and_going_back_runs_nothing(project: Project) -> None:
    before = project.metrics()
    project.set(probe__negatives="natural")
    assert sorted(project.ran("repro")) == sorted(["check_params", *PROBES])
    assert project.metrics() != before
    project.run("git", "checkout", "params.yaml")
    assert project.ran("repro") == []
    assert project.metrics() == before


def test_a_new_point_and_a_new_variant_rerun_only_what_is_new(project: Project) -> None:
    earlier = project.metrics()
    project.set(extract__points=[POINT, "layer_delta.2"], sae__train=[SAE, "topk"])
    ran = project.ran("repro")

    def on_items(stage: str, *variants: str) -> set[str]:
        both = (POINT, "layer_delta.2")
        return {f"{stage}@{point}-{variant}" for point in both for variant in variants or (SAE, "topk")}

    items = {f"{point}-{variant}" for point in (POINT, "layer_delta.2") for variant in (SAE, "topk")}
    new_items = items - {f"{POINT}-{SAE}"}
    expected = {"check_params", "check_points", "extract", "probe_dense@layer_delta.2", "evaluate", "report"}
    expected |= {
        f"{stage}@{item}" for stage in ("train_sae", "measure_sae", "probe_sae", "explain") for item in new_items
    }
    expected |= {f"intervene@{item}" for item in items}  # which look at every point downstream
    assert set(ran) == expected
    name = f"metrics/sae/{POINT}/{SAE}.json"
    assert project.metrics()[name] == earlier[name]
    arms = json.loads((project.folder / "metrics/probes.json").read_text())["balanced"]
    assert set(arms) == {"text", POINT, "layer_delta.2"}
    variants = load_yaml(project.folder / "params.yaml")["sae"]["variants"]
    of_all = {"check_params", "report"}  # which read all of params.yaml
    for changes, expected in (
        ({"sae__variants": variants | {"topk": {"architecture": "topk", "lr": 1e-4}}}, on_items("train_sae", "topk")),
        ({"sae__lr": 1e-4}, on_items("train_sae")),
        ({"device": "cpu"}, {"extract"} | on_items("measure_sae") | on_items("intervene")),
    ):
        project.set(**changes)
        assert set(json.loads(project.run("dvc", "status", "--json"))) == of_all | expected
        project.set(sae__variants=variants, sae__lr=None, device="auto")
    project.set(extract__points=[POINT], sae__train=[SAE])
    # only those that remove what the point that went has left in the folders that they depend on
    assert set(project.ran("repro")) == {f"intervene@{POINT}-{SAE}", "evaluate"}
    assert project.ran("repro") == []
    assert project.metrics() == earlier


def test_a_clean_clone_gives_the_same_bytes_and_runs_experiments(base: Project, tmp_path: Path) -> None:
    base.run("git", "clone", "-q", str(base.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    params = (clone.folder / "params.yaml").read_bytes()
    assert len(clone.ran("repro")) == 14, "all but intervene and evaluate, whose outputs are in git, are computed anew"
    assert clone.metrics() == base.metrics()
    assert clone.run("git", "status", "--porcelain") == "", "dvc.lock and metrics are those of the commit"

    assert sorted(clone.ran("exp", "run", "-n", "here", "-S", "probe.negatives=natural")) == sorted(
        ["check_params", *PROBES]
    )
    clone.run("git", "checkout", "-q", ".")
    clone.run("dvc", "checkout")
    assert sorted(clone.ran("exp", "run", "--temp", "-n", "temp", "-S", "evaluate.resamples=150")) == [
        "check_params",
        "evaluate",
        "report",
    ]
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


def test_metrics_diff_between_branches_prints_what_changed(project: Project) -> None:
    project.run("git", "checkout", "-qb", "other")
    project.set(probe__negatives="natural", split__test_fraction=0.3)
    project.ran("repro")
    project.commit("other params")
    difference = json.loads(project.run("dvc", "metrics", "diff", "main", "other", "--json"))
    prompts = difference["metrics/split.json"]["prompts.test"]
    assert prompts["new"] > prompts["old"] and prompts["diff"] == prompts["new"] - prompts["old"]
    assert "metrics/probes.json" in difference and "metrics/filter.json" not in difference
    assert "balanced.text.tfidf.auroc" in project.run("dvc", "metrics", "diff", "main", "other")


def test_plots_are_drawn_from_every_curve(project: Project) -> None:
    project.run("dvc", "plots", "show", "-o", "drawn")
    page = (project.folder / "drawn/index.html").read_text()
    for title in ("ROC on the balanced test prompts", "Prompts by source and cluster", "Prompt lengths"):
        assert page.count(f'"title": "{title}') == 1, title
    for name in ("sae", "sae_density", "sae_l0", "interventions"):
        assert page.count(f'"title": "{PLOTS[name].title}, {SAE} at {POINT}"') == 1, name


def test_a_changed_local_file_and_model_are_noticed(project: Project) -> None:
    write_csv(project.folder / "prompts.csv", sample_rows(601))
    changed = json.loads(project.run("dvc", "status", "--json"))
    assert set(changed) == {"download"}


def test_a_small_number_that_dvc_writes_is_a_number(project: Project) -> None:
    assert project.ran("exp", "run", "-S", f"++sae.variants.{SAE}.lr=1e-5", "check_params") == ["check_params"]
    assert "lr: 1e-05}" in (project.folder / "params.yaml").read_text()


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
