"""What the page of the prompt set shows."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.files import LONGEST_NAME
from pipeline.core.text import label, labels
from pipeline.prompts.draw import draw_key
from pipeline.prompts.sources import listed, sum_of
from pipeline.prompts.table import Prompts
from pipeline.report.page import pictures
from pipeline.report.plots import OF_PROMPTS

EXAMPLES, LONGEST = 3, 400  # of each cluster; characters of one that are shown
REASONS = {
    "too_short": "shorter than filter.min_chars",
    "duplicate": "the same text as another prompt",
    "conflicting_label": "the same text as a prompt of another cluster",
    "over_max_prompts": "more than filter.max_prompts",
}


def data_page(metrics: Mapping[str, Any], prompts: Prompts, names: list[str]) -> dict[str, Any]:
    """The content of templates/data.html.

    Args:
        metrics: of download, filter and split, by name; names: of the clusters.
    """
    of_filter, split, download = (metrics[name] for name in ("filter", "split", "download"))
    order = sorted(range(len(prompts.ids)), key=lambda row: draw_key(0, "examples", prompts.ids[row]))
    clusters = [
        {
            "name": name,
            "is_target": number == prompts.target,
            "rows": download["rows_by_cluster"].get(key, 0),
            "kept": of_filter["kept_by_cluster"].get(str(number), 0),
            "test_share": split["test_share_by_cluster"].get(str(number)),
            "examples": [
                {"text": prompts.texts[row][:LONGEST], "left": max(len(prompts.texts[row]) - LONGEST, 0)}
                for row in [row for row in order if prompts.clusters[row] == number][:EXAMPLES]
            ],
        }
        for number, (name, key) in enumerate(zip(names, labels(names, LONGEST_NAME), strict=True))
    ]
    return {
        "filter": of_filter,
        "split": split,
        "reasons": REASONS,
        "clusters": clusters,
        "sources": _sources(of_filter["kept_by_source"], split["test_share_by_source"]),
        "figures": pictures(OF_PROMPTS),
    }


def _sources(kept: Mapping[str, int], test_share: Mapping[str, float]) -> list[dict[str, Any]]:
    """How many prompts of the largest sources, and of all others, were kept, and what share of these is in test."""
    first, others = listed(kept)
    of_others = sum(kept[source] for source in others)
    in_test = sum(kept[source] * test_share[source] for source in others)
    rows = [{"name": label(source), "kept": kept[source], "test_share": test_share[source]} for source in first]
    return rows + [{"name": name, "kept": of_others, "test_share": in_test / of_others} for name in sum_of(others)]
