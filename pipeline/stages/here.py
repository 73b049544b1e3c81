"""Facts about this checkout alone, which are no outputs of DVC: its commit, and how long stages took."""

import subprocess
from typing import Any

from pipeline.core.files import read_json
from pipeline.params.base import read
from pipeline.report.run import STAGES
from pipeline.stages import paths
from pipeline.stages.timings import seconds_of

CODE = ("pipeline", "params.yaml", "dvc.yaml")


def run_here() -> dict[str, Any]:
    """Return what report/data/here.js holds."""
    points, variants = read("extract.points", list[str]), read("sae.train", list[str])
    of_saes = [[point, variant] for point in points for variant in variants]
    items = dict.fromkeys(("train_sae", "measure_sae", "probe_sae", "intervene", "explain"), of_saes)
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


def _commit() -> str:
    """Return the commit of the checkout that the report is made in."""
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
