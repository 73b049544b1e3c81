"""Metrics as the rows of tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.judging.arm import shown_name
from pipeline.judging.settings import FULL
from pipeline.params.sae import read_variant
from pipeline.report.page import figure
from pipeline.report.sae_figures import order_title


def arm_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arms of metrics/probes.json, best AUROC first, also with their AUROC on harder test prompts.

    `hard`, `least_similar` and `within_templates`: see `pipeline.judging.comparisons.difficulty`; None where there are
    too few prompts.
    """
    elsewhere = {
        "hard": results["hard"],
        "least_similar": results["by_similarity"].get("1", {}),
        "within_templates": results["within_templates"],
    }
    rows = [
        {"name": shown_name(points, key)}
        | metrics
        | {name: found.get(points, {}).get(key, {}).get("auroc") for name, found in elsewhere.items()}
        for points, arms in results[FULL].items()
        for key, metrics in arms.items()
    ]
    return sorted(rows, key=lambda row: -row["auroc"])


def sae_description(variant: str, held_out: Mapping[str, Any]) -> str:
    """What kind of SAE it is, in a sentence."""
    params = read_variant(variant)
    if params.architecture == "pretrained":
        return f"Trained elsewhere, from {params.path}; on average {held_out['l0']:.1f} latents are active a token."
    return (
        f"{params.architecture} with {params.width} latents, trained for k = {params.k} active ones a token; "
        f"{held_out['l0']:.1f} are, on prompts held out of its training."
    )


def faithfulness_rows(areas: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of metrics/interventions: a row a classifier, method and order of the tokens."""
    for method, orders in sorted(areas.items()):
        for order, classifiers in sorted(orders.items()):
            for classifier, area in sorted(classifiers.items(), reverse=True):
                yield {"method": method, "order": order_title(order), "classifier": classifier} | area


def ablation_rows(ablation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What changes without the top latents, on targets and others, beside random ones that remove as much."""
    for side, title in (("target", "targets"), ("other", "others")):
        top, random = ablation["top"][side], ablation["random"][side]
        if top["kl"] is not None:
            yield _ablation_row("KL divergence of the next token (nats)", title, top["kl"], random["kl"], "{:.4f}")
            yield _ablation_row("cross-entropy of the next token (nats)", title, top["ce"], random["ce"], "{:+.4f}")
        for name, change in top["classifiers"].items():
            what = "SAE classifier" if name == "sae" else f"probe {name}"
            of_random = random["classifiers"][name]["logit"]
            yield _ablation_row(f"logit of the {what}", title, change["logit"], of_random, "{:+.3f}")


def _ablation_row(what: str, side: str, top: float | None, random: Mapping[str, float], form: str) -> dict[str, Any]:
    texts = {name: figure(random[name], form) for name in ("mean", "low", "high")}
    texts |= {"top": figure(top, form), "p_value": figure(random["p_value"], "{:.2f}")}
    return {"what": what, "side": side, **texts}
