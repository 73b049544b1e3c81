"""The pipeline under DVC: only what a change invalidates runs again."""

import json

import pytest
from dvc_project import POINT, PROBES, SAE, Project
from helpers import load_yaml, sample_rows, write_csv

from pipeline.report.plots import PLOTS


def test_what_has_not_changed_does_not_run(project: Project) -> None:
    assert project.ran("repro") == []
    assert project.run("git", "status", "--porcelain") == ""


def test_a_probes_param_reruns_only_probes_onward_is_compared_and_going_back_runs_nothing(project: Project) -> None:
    before = project.metrics()
    project.set(probe__negatives="natural")
    assert sorted(project.ran("repro")) == sorted(["check_params", *PROBES])
    assert project.metrics() != before
    project.run("git", "checkout", "-qb", "other")
    project.commit("other params")
    difference = json.loads(project.run("dvc", "metrics", "diff", "main", "other", "--json"))
    auroc = difference["metrics/probes.json"]["balanced.text.tfidf.auroc"]
    assert auroc["diff"] == pytest.approx(auroc["new"] - auroc["old"])
    assert "metrics/split.json" not in difference
    assert "balanced.text.tfidf.auroc" in project.run("dvc", "metrics", "diff", "main", "other")
    project.run("git", "checkout", "-q", "main")
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
    expected = {
        "check_params",
        "check_points",
        "extract",
        "probe_dense@layer_delta.2",
        "probe_points",
        "probe_stacked",
        "evaluate",
        "report",
    }
    expected |= {
        f"{stage}@{item}" for stage in ("train_sae", "measure_sae", "probe_sae", "explain") for item in new_items
    }
    expected |= {f"intervene@{item}" for item in items}  # which look at every point downstream
    assert set(ran) == expected
    name = f"metrics/sae/{POINT}/{SAE}.json"
    assert project.metrics()[name] == earlier[name]
    arms = json.loads((project.folder / "metrics/probes.json").read_text())["balanced"]
    assert set(arms) == {"text", POINT, "layer_delta.2", f"layer_delta.2 + {POINT}"}
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
    assert set(project.ran("repro")) == {f"intervene@{POINT}-{SAE}", "probe_stacked", "evaluate"}
    assert project.ran("repro") == []
    assert project.metrics() == earlier


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
