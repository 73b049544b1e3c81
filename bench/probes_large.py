"""How long the whole evaluation takes at a large size, every arm in every setting, and how much memory.

Made-up activations of sample prompts at one point, and an SAE with random weights and 64 active latents a token, in a
temporary folder (a few GB); the stages run one after the other, each in a process of its own. Memory is the largest
sum of the proportional set sizes (PSS) of a stage's processes, looked at twice a second (Linux).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from ruamel.yaml import YAML

from pipeline.activations.store import INDEX, shard_name, write_index, write_manifest, write_shard
from pipeline.core.files import read_table, write_json, write_table
from pipeline.sae.model import Sae
from pipeline.stages import paths

ROOT = Path(__file__).resolve().parents[1]
POINT, VARIANT = "resid_post.0", "topk"
ACTIVE = 64  # latents a token
RANK = 64  # of the made-up activations, but for noise
SHARD_PROMPTS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--prompts", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=2_560, help="of the activations; default: %(default)s")
    parser.add_argument("--latents", type=int, default=16_384, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=80, help="a prompt; default: %(default)s")
    options = parser.parse_args()
    result: dict[str, Any] = {name: value for name, value in vars(options).items() if name != "json"}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options)
        stages = [["probe_text"], ["probe_dense", POINT], ["probe_sae", POINT, VARIANT]]
        stages += [["probe_points"], ["probe_stacked"], ["evaluate"]]
        result["stages"] = {stage[0]: run(Path(folder), *stage) for stage in stages}
    for name, combine in (("seconds", sum), ("peak_mb", max)):
        result[name] = combine(stage[name] for stage in result["stages"].values())
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def prepare(folder: Path, options: argparse.Namespace) -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["data"]["sample_rows"] = round(options.prompts * 1.15)
    params["filter"]["max_prompts"] = options.prompts
    params["extract"]["points"] = [POINT]
    params["sae"]["train"] = [VARIANT]
    YAML().dump(params, folder / "params.yaml")
    (folder / "data").mkdir()
    shutil.copyfile(ROOT / "data/benign.csv", folder / "data/benign.csv")
    for stage in ("download", "filter", "split"):
        run(folder, stage)
    os.chdir(folder)
    write_activations(options)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(options.latents, options.width, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    tensors = {"W_enc": directions.T.contiguous(), "W_dec": directions}
    tensors |= {"b_enc": torch.zeros(options.latents), "b_dec": torch.zeros(options.width)}
    where = paths.sae(POINT, VARIANT, 0, [0])
    Sae("topk", tensors, ACTIVE).save(where)
    write_table(where / paths.TRAINED_ON, pa.table({"prompt_id": pa.array([], pa.string())}))
    unknown = {"fvu": 1.0, "l0": float(ACTIVE), "dead_fraction": 0.0}
    write_json(paths.METRICS / "sae" / POINT / f"{VARIANT}.json", {"held_out": unknown})


def write_activations(options: argparse.Namespace) -> None:
    """Tokens of a low rank and noise; those of the target are shifted a little."""
    prompts, benign = read_table(paths.PROMPTS), read_table(paths.BENIGN)
    ids = prompts["prompt_id"].to_pylist() + benign["prompt_id"].to_pylist()
    target = np.array(prompts["cluster"].to_pylist() + [-1] * len(benign)) == 3
    rng = np.random.default_rng(0)
    counts = rng.integers(options.tokens // 2, options.tokens * 3 // 2, len(ids))
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(RANK, options.width, generator=generator)
    shift = torch.randn(RANK, generator=generator) * 0.1
    folder = paths.ACTIVATIONS / POINT
    shards = []
    for number, first in enumerate(range(0, len(ids), SHARD_PROMPTS)):
        here = slice(first, first + SHARD_PROMPTS)
        of_prompt = torch.randn(len(counts[here]), RANK, generator=generator)
        of_prompt += torch.from_numpy(target[here])[:, None] * shift
        repeats = torch.from_numpy(counts[here])
        low_rank = of_prompt.repeat_interleave(repeats, dim=0)
        low_rank += torch.randn(low_rank.shape, generator=generator)
        x = low_rank @ basis
        x += 0.3 * torch.randn(x.shape, generator=generator)
        write_shard(folder, number, x.half())
        shards.append({"file": shard_name(number), "rows": len(x)})
    write_manifest(folder, {"shards": shards, "width": options.width, "dtype": "float16", "special_ids": [0]})
    positions = np.concatenate([np.arange(count) for count in counts])
    columns = [pa.array(np.repeat(ids, counts)), pa.array(positions, pa.int32()), pa.array(positions + 1, pa.int32())]
    write_index(paths.ACTIVATIONS / INDEX, [pa.table(columns, names=["prompt_id", "position", "token_id"])])


def run(folder: Path, *stage: str) -> dict[str, float]:
    """Seconds and MB of a stage's processes."""
    command = [sys.executable, "-m", f"pipeline.stages.{stage[0]}", *stage[1:]]
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        while process.poll() is None:
            peak = max(peak, sum(pss_mb(pid) for pid in family(process.pid)))
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"error: the stage {stage[0]} ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak)}


def family(pid: int) -> list[int]:
    """A process and its children's children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in family(int(child)))]


def pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


if __name__ == "__main__":
    main()
