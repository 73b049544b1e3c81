"""The data of the latent and prompt pages of one SAE, in scripts that are loaded as they are needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.text import label, labels
from pipeline.judging.arm import ArmId
from pipeline.report.script_data import brief, write_chunks, write_script

LATENTS_A_FILE, TEXTS_A_FILE, CONTRIBUTIONS_A_FILE = 128, 100, 100
SCORE_DIGITS = 6  # so that none moves to the other side of 0.5
SNIPPET = 90  # characters of a prompt, in the table of all of them
TOP_TOKENS = 3  # of a latent, in the table of all of them
COLUMNS = (
    "weight",
    "mean_contribution",
    "density",
    "rate_target",
    "rate_other",
    "source_spread",
    "stability",
    "max_activation",
)


def write_latents(folder: Path, latents: pa.Table, examples: pa.Table, meta: Mapping[str, Any]) -> None:
    """Write latents.js (a column each of what the table shows) and latents-N.js (all about LATENTS_A_FILE of them).

    Args:
        latents, examples: tables of stage explain.
    """
    index: dict[str, Any] = {name: [brief(value) for value in latents[name].to_pylist()] for name in COLUMNS}
    tokens = latents["tokens"].to_pylist()
    index["tokens"] = [[entry["token"] for entry in (row or [])[:TOP_TOKENS]] for row in tokens]
    index["file"] = LATENTS_A_FILE
    index |= {name: meta[name] for name in ("point", "variant", "clusters", "target", "pooling")}
    index |= {
        "sources": labels(meta["sources"]),
        "counts": {name: meta["counts"][name] for name in ("clusters", "sources")},
    }
    write_script(folder, "latents", index)
    shown: list[list[Any]] = [[] for _ in tokens]
    for row in examples.to_pylist():
        shown[row["latent"]].append(
            [row["kind"], row["prompt"], brief(row["activation"]), row["positions"], _briefly(row["values"], 2)]
        )
    rows = [
        {
            "tokens": _pairs(row["tokens"], "token", "score"),
            "promotes": _pairs(row["promotes"], "token", "value"),
            "suppresses": _pairs(row["suppresses"], "token", "value"),
            "neighbours": _pairs(row["neighbours"], "latent", "cosine"),
            "clusters": _briefly(row["cluster_rates"], 2),
            "sources": _briefly(row["source_rates"], 2),
            "examples": shown[number],
        }
        for number, row in enumerate(latents.to_pylist())
    ]
    write_chunks(folder, "latents", rows, LATENTS_A_FILE)


def write_prompts(
    folder: Path,
    prompts: pa.Table,
    contributions: pa.Table,
    scores: Mapping[ArmId, np.ndarray],
    scored: Sequence[str],
    texts: Mapping[str, str],
    meta: Mapping[str, Any],
) -> None:
    """Write prompts.js (an entry a prompt), texts-N.js (their tokens) and contributions-N.js (of the scored ones).

    Args:
        prompts, contributions: tables of stage explain.
        scores: of each arm, of the scored prompts (n); scored: their ids, among which are those with contributions.
        texts: by prompt id.
    """
    rows = prompts.to_pylist()
    arms = {str(arm): values for arm, values in sorted(scores.items(), key=lambda item: str(item[0]))}
    scores_of = dict(zip(scored, np.stack(list(arms.values()), axis=1), strict=True))
    number_of = {prompt: number for number, prompt in enumerate(contributions["prompt"].to_pylist())}
    index = {
        "arms": list(arms),
        "file": {"texts": TEXTS_A_FILE, "contributions": CONTRIBUTIONS_A_FILE},
        "ids": [row["prompt_id"] for row in rows],
        "sides": [row["side"] for row in rows],
        "clusters": [row["cluster"] for row in rows],
        "sources": [label(row["source"]) for row in rows],
        "snippets": [texts[row["prompt_id"]][:SNIPPET] for row in rows],
        "names": meta["clusters"],
        "own": {
            "sae": str(ArmId("sae", (meta["point"],), meta["variant"])),
            "dense": str(ArmId("dense", (meta["point"],))),
        },
        "target": meta["target"],
        "bias": meta["bias"],
        "contributions": [number_of.get(row) for row in range(len(rows))],
        "scores": [
            _briefly(scores_of[row["prompt_id"]].tolist(), SCORE_DIGITS) if number in number_of else None
            for number, row in enumerate(rows)
        ],
    }
    write_script(folder, "prompts", index)
    write_chunks(folder, "texts", [row["tokens"] for row in rows], TEXTS_A_FILE)
    parts = [
        {
            "latents": _pairs(row["latents"], "latent", "contribution"),
            "sae": {"logit": row["sae_logit"], "tokens": _rounded(row["sae_tokens"])},
            "dense": {"logit": row["dense_logit"], "tokens": _rounded(row["dense_tokens"])},
        }
        for row in contributions.to_pylist()
    ]
    write_chunks(folder, "contributions", parts, CONTRIBUTIONS_A_FILE)


def _pairs(entries: Sequence[Mapping[str, Any]] | None, first: str, second: str) -> list[list[Any]] | None:
    return None if entries is None else [[entry[first], brief(entry[second])] for entry in entries]


def _rounded(values: Sequence[float]) -> list[float | int]:
    """To four decimals, so that sums stay what they are."""
    return [int(value) if value == int(value) else round(value, 4) for value in values]


def _briefly(values: Sequence[float], digits: int = 3) -> list[float | int | None]:
    return [brief(value, digits) for value in values]
