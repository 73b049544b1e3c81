"""A project under DVC, as its users drive it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import SMALL, dump_yaml, load_yaml, sample_rows, save_small_model, write_csv, write_params

from tools.stage_code import ROOT

SAE, POINT = "batch_topk", "resid_post.1"
OF_SAE = [f"{stage}@{POINT}-{SAE}" for stage in ("probe_sae", "intervene", "explain")]
PROBES = ["probe_text", f"probe_dense@{POINT}", *OF_SAE, "probe_points", "probe_stacked", "evaluate", "report"]


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


def make_project(folder: Path) -> None:
    """A project in folder/project that has been run, by runs/local.sh, and committed; its model is in folder/lm."""
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
    assert len(re.findall("Running stage", script)) == 19
    params = load_yaml(project.folder / "params.yaml")
    assert params["model"] | {"source": "local", "path": str(folder / "lm")} == params["model"]
    assert params["evaluate"]["resamples"] == 120
    # as in the repository, so that a clone finds it
    project.set(data__path="prompts.csv")
    project.ran("repro")
    project.commit("its first run")
