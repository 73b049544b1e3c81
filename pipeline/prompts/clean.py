"""Drop prompts that teach nothing, and count why each was dropped."""

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import UserError
from pipeline.prompts.draw import draw_key


def clean(
    raw: pa.Table, *, min_chars: int, deduplicate: bool, max_prompts: int, seed: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Drop short prompts, exact duplicates and what exceeds `max_prompts`.

    Of rows with the same text and the same cluster, the one with the smallest id stays. Where the clusters of the same
    text differ, nobody knows the label, so all of its rows go. Cutting to `max_prompts` keeps the proportions of
    cluster and source.

    Args:
        raw: columns prompt_id, prompt, source, cluster, in any order.
        min_chars: shortest prompt that stays, in characters. A prompt of white space alone never stays.

    Returns: the rows that stay, ordered by prompt_id, whatever the order of `raw`; and counts: rows in, rows dropped by
        reason, rows kept (their sum is rows in), and groups of duplicates with differing clusters.
    """
    rows = sorted(raw.to_pylist(), key=lambda row: row["prompt_id"])
    dropped: Counter[str] = Counter(too_short=0, duplicate=0, conflicting_label=0, over_max_prompts=0)

    kept = [row for row in rows if len(row["prompt"]) >= min_chars and row["prompt"].strip()]
    dropped["too_short"] = len(rows) - len(kept)

    by_text: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in kept:
        by_text[row["prompt"]].append(row)
    conflicts = {text for text, group in by_text.items() if len({row["cluster"] for row in group}) > 1}
    if deduplicate:
        dropped["conflicting_label"] = sum(len(by_text[text]) for text in conflicts)
        unique = [group[0] for text, group in by_text.items() if text not in conflicts]
        dropped["duplicate"] = len(kept) - dropped["conflicting_label"] - len(unique)
        kept = unique

    if len(kept) > max_prompts:
        dropped["over_max_prompts"] = len(kept) - max_prompts
        kept = _stratified_sample(kept, max_prompts, seed)
    if not kept:
        raise UserError(f"no prompt is left of {len(rows)}: lower filter.min_chars = {min_chars}")
    table = pa.Table.from_pylist(sorted(kept, key=lambda row: row["prompt_id"]), schema=raw.schema)
    return table, {
        "rows": len(rows),
        "dropped": dict(dropped),
        "kept": table.num_rows,
        "conflicting_groups": len(conflicts),
        "kept_by_cluster": _counts(table["cluster"]),
        "kept_by_source": _counts(table["source"]),
    }


def clean_benign(raw: pa.Table, prompts: pa.Table, min_chars: int) -> pa.Table:
    """Return harmless prompts of at least `min_chars`, by prompt_id, each text once and none that is in `prompts`."""
    seen = set(prompts["prompt"].to_pylist())
    kept = []
    for row in sorted(raw.to_pylist(), key=lambda row: row["prompt_id"]):
        if len(row["prompt"]) >= min_chars and row["prompt"].strip() and row["prompt"] not in seen:
            seen.add(row["prompt"])
            kept.append(row)
    return pa.Table.from_pylist(kept, schema=raw.schema)


def _stratified_sample(rows: list[dict[str, Any]], size: int, seed: int) -> list[dict[str, Any]]:
    """Draw `size` of the rows, with each (cluster, source) in proportion, by largest remainders."""
    strata: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        strata[row["cluster"], row["source"]].append(row)
    shares = {key: len(group) * size / len(rows) for key, group in strata.items()}
    quotas = {key: int(share) for key, share in shares.items()}
    by_remainder = sorted(shares, key=lambda key: (quotas[key] - shares[key], key))
    for key in by_remainder[: size - sum(quotas.values())]:
        quotas[key] += 1
    for group in strata.values():
        group.sort(key=lambda row: draw_key(seed, "filter", row["prompt_id"]))
    return [row for key, group in strata.items() for row in group[: quotas[key]]]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = {str(pair["values"]): pair["counts"] for pair in pc.value_counts(column).to_pylist()}
    return dict(sorted(counted.items()))
