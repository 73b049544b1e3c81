"""How fast the probes on SAE latents are fitted, beside the plain way.

Ours fits all folds and all C at once, with the latents sparse where most of them are inactive.
The plain way makes them dense and fits scikit-learn's LogisticRegression anew for each C in each fold. Both choose C by
the same folds and fit once more on all train prompts; both get made-up latents: each prompt has some of many, and a few
are commoner in the target class, so that neither the smallest nor the largest C is the best.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

import pipeline.stages  # noqa: F401  (sets the environment)
from pipeline.judging.settings import FULL
from pipeline.probes.fit import Fitting, fit
from pipeline.probes.models import Model
from pipeline.probes.task import Task

C_GRID = [0.001, 0.01, 0.1, 1.0, 10.0]
HOW = Fitting(C_GRID, folds=5, seed=0)
TEST_SHARE = 0.2
Answer = tuple[float, np.ndarray]  # chosen C, scores of all prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.add_argument("--prompts", type=int, default=5_000, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=16_384, help="latents; default: %(default)s")
    parser.add_argument("--active", type=int, default=400, help="active latents a prompt; default: %(default)s")
    options = parser.parse_args()

    latents, labels = made_up(options.prompts, options.width, options.active)
    train = np.arange(round(len(labels) * (1 - TEST_SHARE)))
    task = Task(FULL, 0, train, labels[train])
    groups = np.arange(len(labels))
    test = np.arange(len(train), len(labels))
    result: dict[str, Any] = {"prompts": options.prompts, "width": options.width, "seconds": {}, "C": {}, "auroc": {}}
    ways: dict[str, Callable[[], Answer]] = {
        "ours": lambda: ours(latents, task, groups),
        "plain": lambda: plain(latents, task, groups),
    }
    for name, way in ways.items():
        start = time.perf_counter()
        chosen, scores = way()
        result["seconds"][name] = round(time.perf_counter() - start, 2)
        result["C"][name] = chosen
        result["auroc"][name] = round(float(roc_auc_score(labels[test], scores[test])), 5)
        # ours goes first, so its peak is its own
        result.setdefault("peak_rss_mb", {})[name] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(result, indent=2))
    print(f"{result['seconds']['plain'] / result['seconds']['ours']:.1f} times as fast")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def made_up(prompts: int, width: int, active: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Latents (prompts, width), some much commoner than others, and labels (prompts)."""
    rng = np.random.default_rng(0)
    labels = rng.random(prompts) < 0.5
    common = 1 / np.arange(20, width + 20)
    common *= active / common.sum()
    telling = rng.choice(width // 32, 20, replace=False)
    rows, columns = [], []
    for row in range(prompts):
        chance = common.copy()
        chance[telling] *= 3.0 if labels[row] else 1.0
        chosen = np.flatnonzero(rng.random(width) < chance)
        rows.append(np.full(len(chosen), row))
        columns.append(chosen)
    row, column = np.concatenate(rows), np.concatenate(columns)
    values = rng.exponential(size=len(row)).astype(np.float32)
    return sparse.csr_array(sparse.coo_array((values, (row, column)), shape=(prompts, width))), labels


def ours(latents: sparse.csr_array, task: Task, groups: np.ndarray) -> Answer:
    chosen = fit({"mean": latents}, Model(MaxAbsScaler), task, groups, HOW)[None]
    return chosen.c, chosen.fitted.probabilities(latents)


def plain(latents: sparse.csr_array, task: Task, groups: np.ndarray) -> Answer:
    dense = latents.toarray()
    train, labels = dense[task.train], task.labels
    splits = list(
        StratifiedGroupKFold(HOW.folds, shuffle=True, random_state=HOW.seed).split(train, labels, groups[task.train])
    )

    def model(c: float) -> Any:
        return make_pipeline(MaxAbsScaler(), LogisticRegression(C=c, max_iter=1000))

    means = {}
    for c in C_GRID:
        aurocs = []
        for inside, outside in splits:
            scores = model(c).fit(train[inside], labels[inside]).decision_function(train[outside])
            aurocs.append(roc_auc_score(labels[outside], scores))
        means[c] = np.mean(aurocs)
    best = max(means, key=lambda c: (round(float(means[c]), 6), -c))
    return best, np.asarray(model(best).fit(train, labels).predict_proba(dense)[:, 1])


if __name__ == "__main__":
    main()
