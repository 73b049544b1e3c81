"""What the page of the prompt set shows."""

from typing import Any

from pipeline import paths
from pipeline.files import read_json, read_table
from pipeline.params.base import read
from pipeline.prompts.draw import draw_key

EXAMPLES, LONGEST = 3, 400  # of each cluster; characters of one that are shown
REASONS = {
    "too_short": "shorter than filter.min_chars",
    "duplicate": "the same text as another prompt",
    "conflicting_label": "the same text as a prompt of another cluster",
    "over_max_prompts": "more than filter.max_prompts",
}


def data_page() -> dict[str, Any]:
    """The content of templates/data.html."""
    names, target = read("data.clusters", list[str]), read("probe.target", int)
    of_filter, split, download = (read_json(paths.METRICS / f"{name}.json") for name in ("filter", "split", "download"))
    prompts = sorted(read_table(paths.PROMPTS).to_pylist(), key=lambda row: draw_key(0, "examples", row["prompt_id"]))
    clusters = [
        {
            "name": name,
            "is_target": number == target,
            "rows": download["rows_by_cluster"].get(name, 0),
            "kept": of_filter["kept_by_cluster"].get(str(number), 0),
            "test_share": split["test_share_by_cluster"].get(str(number)),
            "examples": [
                {"text": row["prompt"][:LONGEST], "left": max(len(row["prompt"]) - LONGEST, 0)}
                for row in [row for row in prompts if row["cluster"] == number][:EXAMPLES]
            ],
        }
        for number, name in enumerate(names)
    ]
    return {
        "filter": of_filter,
        "split": split,
        "reasons": REASONS,
        "clusters": clusters,
        "figures": [
            {"file": "source_by_cluster.png", "caption": "Prompts by source and cluster, before the filter"},
            {"file": "prompt_length.png", "caption": "Prompt lengths before the filter, with the cut for short ones"},
            {"file": "mean_length.png", "caption": "Mean prompt length by source and cluster, before the filter"},
        ],
    }
