"""What was run: data, model and params, and what came out of every stage."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from pipeline.params.yaml_file import parse_yaml

STAGES = (
    *("download", "filter", "split", "fetch_model", "extract", "train_sae", "measure_sae"),
    *("probe_text", "probe_dense", "probe_sae", "probe_points", "probe_stacked", "intervene", "explain", "evaluate"),
)


def what_was_run(metrics: Mapping[str, Any], params: Mapping[str, Any], saes: int) -> dict[str, Any]:
    """The part `run` of templates/index.html.

    Args:
        metrics: of download, filter, split, model, extract and summary, by name; params: all of params.yaml; saes: how
            many there are.
    """
    default = parse_yaml((files("pipeline.params") / "default.yaml").read_text("utf-8"), "default.yaml")
    before = dict(_flat(default))
    return {
        "data": _data(metrics["download"]),
        "model": _model(metrics["model"], params["model"]),
        "changed": {key: value for key, value in _flat(params) if key not in before or before[key] != value},
        "stages": list(_stages(metrics, saes)),
    }


def _data(download: Mapping[str, Any]) -> str:
    at = f" at commit {download['commit']}" if download["commit"] else ""
    return f"{download['rows']} prompts, {download['source']}: {download['origin']}{at}"


def _model(model: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    names = {"tiny": "made here", "hub": params["repo"], "local": params["path"]}
    at = f" at commit {model['commit']}" if model["commit"] else ""
    quantised = f", {model['quantization']}" if model["quantization"] else ""
    shape = f"{model['architecture']}, {model['layers']} layers, width {model['width']}{quantised}"
    return f"{model['source']}: {names[model['source']]}{at}: {shape}"


def _stages(metrics: Mapping[str, Any], saes: int) -> Iterator[dict[str, str]]:
    extract, split, summary = metrics["extract"], metrics["split"], metrics["summary"]
    counts = {
        "download": f"{metrics['download']['rows']} prompts, {metrics['download']['benign_rows']} harmless ones",
        "filter": f"{metrics['filter']['kept']} prompts kept",
        "split": f"{split['prompts']['train']} train and {split['prompts']['test']} test prompts",
        "extract": f"{extract['tokens_kept']:,} token activations a point, of {extract['prompts']} prompts",
        "train_sae": f"{saes} SAEs",
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
