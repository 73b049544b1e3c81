"""What was run: data, model, code and params, what came out of every stage, and how long it took here."""

import subprocess
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from pipeline.core.files import read_json
from pipeline.params.base import read, read_file
from pipeline.params.yaml_file import parse_yaml
from pipeline.stages import paths
from pipeline.stages.timings import seconds_of

STAGES = (
    *("download", "filter", "split", "fetch_model", "extract", "train_sae"),
    *("probe_text", "probe_dense", "probe_sae", "intervene", "explain", "evaluate"),
)
CODE = ("pipeline", "params.yaml", "dvc.yaml")


def what_was_run() -> dict[str, Any]:
    """The part `run` of templates/index.html."""
    metrics = {
        name: read_json(paths.METRICS / f"{name}.json")
        for name in ("download", "filter", "split", "model", "extract", "summary")
    }
    default = parse_yaml((files("pipeline.params") / "default.yaml").read_text("utf-8"), "default.yaml")
    before = dict(_flat(default))
    return {
        "data": _data(metrics["download"]),
        "model": _model(metrics["model"]),
        "changed": {key: value for key, value in _flat(read_file()) if before.get(key) != value},
        "stages": list(_stages(metrics)),
    }


def run_here() -> dict[str, Any]:
    """The commit of this checkout, and how long the stages took here: never the same twice, so not in DVC's outputs."""
    points, variants = read("extract.points", list[str]), read("sae.train", list[str])
    of_saes = [[point, variant] for point in points for variant in variants]
    items = dict.fromkeys(("train_sae", "probe_sae", "intervene", "explain"), of_saes)
    items["probe_dense"] = [[point] for point in points]
    times = {}
    for name in STAGES:
        runs = seconds_of(name, items.get(name, [[]]))
        if runs:
            times[name] = f"{sum(runs):,.1f} s"
        if name == "extract" and runs:
            tokens = read_json(paths.METRICS / "extract.json")["tokens_run"]
            times[name] += f", {tokens / sum(runs):,.0f} tokens/s, with loading"
    return {"code": _commit(), "times": times}


def _data(download: Mapping[str, Any]) -> str:
    at = f" at commit {download['commit']}" if download["commit"] else ""
    return f"{download['rows']} prompts, {download['source']}: {download['origin']}{at}"


def _model(model: Mapping[str, Any]) -> str:
    names = {"tiny": "made here", "hub": read("model.repo", str), "local": read("model.path", str)}
    at = f" at commit {model['commit']}" if model["commit"] else ""
    quantised = f", {model['quantization']}" if model["quantization"] else ""
    shape = f"{model['architecture']}, {model['layers']} layers, width {model['width']}{quantised}"
    return f"{model['source']}: {names[model['source']]}{at}: {shape}"


def _commit() -> str:
    """The commit of the checkout that the report is made in."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "not in a git repository"
    changed = ", with changes that are not committed" if _git("status", "--porcelain", "-uno", "--", *CODE) else ""
    return f"commit {head[:12]}{changed}"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _stages(metrics: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    extract, split, summary = metrics["extract"], metrics["split"], metrics["summary"]
    counts = {
        "download": f"{metrics['download']['rows']} prompts, {metrics['download']['benign_rows']} harmless ones",
        "filter": f"{metrics['filter']['kept']} prompts kept",
        "split": f"{split['prompts']['train']} train and {split['prompts']['test']} test prompts",
        "extract": f"{extract['tokens_kept']:,} token activations a point, of {extract['prompts']} prompts",
        "train_sae": f"{sum(1 for _ in (paths.METRICS / 'sae').glob('*/*.json'))} SAEs",
        "evaluate": f"{summary['test_prompts']} balanced test prompts",
    }
    for name in STAGES:
        yield {"name": name, "counts": counts.get(name, "")}


def _flat(params: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(params, dict):
        for key, value in params.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, params
