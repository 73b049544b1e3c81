"""dvc.yaml says of every stage what its code really imports and reads."""

import fnmatch
import re
from typing import Any

import pytest
from helpers import load_yaml

from pipeline.report.plots import PLOTS
from tools.deps import DEFAULT, RERUNS, default_params, reruns, with_code_lists, with_plots
from tools.stage_code import ROOT, read_keys

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
    "measure_sae",
    "probe_text",
    "probe_dense",
    "probe_sae",
    "probe_points",
    "probe_stacked",
    "intervene",
    "explain",
    "evaluate",
    "report",
]
DVC: dict[str, Any] = load_yaml(ROOT / "dvc.yaml")


def test_the_stages_are_those_of_the_design() -> None:
    assert list(DVC["stages"]) == STAGES
    assert all(stage["desc"] for stage in DVC["stages"].values())


def test_the_lists_of_code_files_and_their_table_are_those_that_make_deps_writes() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert with_code_lists(text) == text, "run 'make deps'"
    assert reruns(text) == (ROOT / RERUNS).read_text(), "run 'make deps'"


def test_the_defaults_that_a_run_is_compared_with_are_those_of_params_yaml() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert (ROOT / DEFAULT).read_text() == default_params(text), "run 'make deps'"
    assert load_yaml(ROOT / DEFAULT) == load_yaml(ROOT / "params.yaml")


def test_plots_look_in_dvc_as_they_do_in_the_report() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert with_plots(text) == text, "run 'make deps'"
    changed = text.replace("      title: ROC", "      title: Other", 1).replace("      x: fpr\n", "", 1)
    changed = changed.replace("          y: latents\n", "          y: tokens\n          # kept\n", 1)
    assert with_plots(changed) == text.replace(
        "          title: Density", "          # kept\n          title: Density", 1
    ), "what else stands there stays"

    entries = list(DVC["plots"])
    entries += [entry for stage in DVC["stages"].values() for entry in stage.get("plots", [])]
    described: dict[str, Any] = {}
    for entry in entries:
        ((file, look),) = entry.items()
        if "title" in look:
            name = file.removeprefix("metrics/plots/").removesuffix(".csv").split("/")[0]
            assert name not in described, "described once"
            described[name] = look
    assert described.keys() == {name for name, plot in PLOTS.items() if plot.template}
    for name, look in described.items():
        assert look["title"].startswith(PLOTS[name].title)
        for key in ("template", "x", "y", "x_label", "y_label"):
            assert look[key] == getattr(PLOTS[name], key)
        assert (ROOT / f".dvc/plots/{look['template']}.json").is_file()


def test_an_import_that_is_missing_from_the_lists_is_noticed() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    without = text.replace("      - pipeline/prompts/split.py\n", "", 1)
    assert without != text and with_code_lists(without) == text


def test_parts_below_the_stages_read_none_of_their_files_and_import_in_no_circle() -> None:
    """stages -> parts -> core: and between the parts no circle either."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py")}
    rooms: dict[str, set[str]] = {}
    for file in files:
        room = file.split("/")[1] if file.count("/") > 1 else ""
        imported = re.findall(r"(?m)^\s*from pipeline\.(\w+)", (ROOT / file).read_text())
        rooms.setdefault(room, set()).update(set(imported) - {room})
    assert not any("stages" in imported for room, imported in rooms.items() if room != "stages")
    assert rooms["core"] == set()
    order = ["core", "params", "prompts", "lm", "activations", "sae", "judging", "probes", "latents"]
    order += ["interventions", "report", "stages"]
    for room in set(rooms) - {""}:
        assert rooms[room] <= set(order[: order.index(room)]), f"{room} imports {rooms[room]}"


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
