"""dvc.yaml says of every stage what its code really imports and reads."""

import fnmatch
import re
from typing import Any

import pytest
from helpers import load_yaml

from tools.stage_code import ROOT, imported_files, read_keys

STAGES = [
    "check_params",
    "download",
    "filter",
    "split",
    "explore",
    "fetch_model",
    "check_points",
    "extract",
    "train_sae",
    "probe_text",
    "probe_dense",
    "probe_sae",
    "intervene",
    "explain",
    "evaluate",
    "report",
]
DVC: dict[str, Any] = load_yaml(ROOT / "dvc.yaml")


def test_the_stages_are_those_of_the_design() -> None:
    assert list(DVC["stages"]) == STAGES
    assert all(stage["desc"] for stage in DVC["stages"].values())


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_exactly_the_code_that_the_stage_imports(name: str) -> None:
    code = {dep for dep in DVC["stages"][name]["deps"] if dep.startswith("pipeline/") and dep.endswith(".py")}
    assert code == imported_files(f"pipeline.stages.{name}")


@pytest.mark.parametrize("name", STAGES)
def test_params_name_exactly_the_keys_that_the_stage_reads(name: str) -> None:
    params = DVC["stages"][name].get("params", [])
    if params == [{"params.yaml": None}]:  # all of them
        return
    listed = {re.sub(r"\$\{item\.\w+\}", "*", key) for key in params}
    assert listed == read_keys(f"pipeline.stages.{name}")


@pytest.mark.parametrize("name", STAGES)
def test_the_command_runs_the_stage_of_that_name(name: str) -> None:
    # extract may be started by torchrun: LAUNCH is filled in by the shell, so what DVC compares never changes
    python = r"\${LAUNCH:-python}" if name == "extract" else "python"
    assert DVC["stages"][name]["cmd"].split()[:3] == [python, "-m", f"pipeline.stages.{name}"]


def test_files_that_are_read_at_run_time_are_deps_of_the_report() -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in ("pipeline/report/templates", "pipeline/report/assets")
        for path in (ROOT / folder).iterdir()
    }
    assert files <= set(DVC["stages"]["report"]["deps"])


def test_every_input_file_is_an_output_of_some_stage_or_named_by_params() -> None:
    outs = [
        re.sub(r"\$\{item\.\w+\}", "*", out if isinstance(out, str) else next(iter(out)))
        for stage in DVC["stages"].values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
    for name, stage in DVC["stages"].items():
        for dep in stage["deps"]:
            if dep.startswith(("pipeline/", "${")):
                continue
            pattern = re.sub(r"\$\{item\.\w+\}", "*", dep)
            assert any(
                fnmatch.fnmatch(out, pattern) or out.startswith(f"{pattern}/") or pattern.startswith(f"{out}/")
                for out in outs
            ), f"{name}: nothing makes {dep}"


def test_links_come_before_copies_in_the_cache_settings() -> None:
    assert 'type = "hardlink,symlink"' in (ROOT / ".dvc/config").read_text()
