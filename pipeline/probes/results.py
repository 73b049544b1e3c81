"""What an arm leaves behind: its scores on test prompts, and its probe."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from pipeline import paths
from pipeline.files import read_table, replacing, write_json, write_table
from pipeline.params.probe import ProbeParams
from pipeline.probes.fit import Probe
from pipeline.probes.task import Part, balanced_task

SCORES_SCHEMA = pa.schema(
    [
        ("setting", pa.string()),
        ("point", pa.string()),  # 'text' for arms that read no activations
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("split", pa.string()),
        ("prompt_id", pa.string()),
        ("score", pa.float64()),  # probability of the target
    ]
)


def read_task(params: ProbeParams, seed: int) -> tuple[Part, Part]:
    """The train and test part of the task that all arms share, from the files of filter and split."""
    return balanced_task(
        read_table(paths.PROMPTS),
        read_table(paths.SPLITS),
        target=params.target,
        negatives=params.negatives,
        min_class_prompts=params.min_class_prompts,
        seed=seed,
    )


def score(probe: Probe, features: Any, test: Part, *, point: str, arm: str, seed: int) -> pa.Table:
    """The probe's scores on the test part, one row a prompt; `features` maps poolings to test features."""
    scores = probe.pipeline.predict_proba(features[probe.choices["pooling"]])[:, 1]
    count = len(test.prompt_ids)
    constants = [[value] * count for value in ("balanced", point, arm, seed, "test")]
    return pa.table([*constants, test.prompt_ids, scores], schema=SCORES_SCHEMA)


def write_scores(path: Path, tables: list[pa.Table]) -> None:
    write_table(path, pa.concat_tables(tables))


def write_probe(folder: Path, probe: Probe, extra: dict[str, Any] | None = None) -> None:
    """Write `probe.json` (choices) and `probe.safetensors`: coefficient (width), intercept, and the scaling.

    The logit of features x is coefficient . ((x - offset) / scale) + intercept.
    """
    regression = probe.pipeline["probe"]
    coefficient = regression.coef_[0]
    prepare = probe.pipeline["prepare"]
    scale = getattr(prepare, "scale_", None)
    offset = getattr(prepare, "mean_", None)
    tensors = {
        "coefficient": coefficient,
        "intercept": regression.intercept_,
        "scale": np.ones_like(coefficient) if scale is None else scale,
        "offset": np.zeros_like(coefficient) if offset is None else offset,
    }
    with replacing(folder / "probe.safetensors") as temporary:
        save_file({name: torch.tensor(value, dtype=torch.float64) for name, value in tensors.items()}, temporary)
    write_json(folder / "probe.json", probe.choices | (extra or {}))
