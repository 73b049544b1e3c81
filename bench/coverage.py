"""How often the intervals of the judge cover the truth, on test sets with groups as unequal as those of real prompts.

    python -m bench.coverage [--simulations 2000] [--limit 5]

Each simulation draws scores of two arms from a model whose AUROC, TPR at 1 % FPR and AUROC difference are known:
normal scores with a part that is the same in a whole group (ICC: its share of the variance), as in near-duplicates.
Group sizes are those of 749 targets and 749 others of a real test set, where two groups hold 28 % of the targets.
--limit caps what a group may give, as `probe.group_limit` does. Beside the judge's intervals stand percentiles.
"""

import argparse

import numpy as np
from scipy.stats import norm

from pipeline.core.progress import progress
from pipeline.judging.judge import Judge
from pipeline.judging.metrics import METRICS

TARGETS = [108, 105, 18, 10, 6, 4, 3, *[2] * 14, *[1] * 464]
OTHERS = [21, 19, 15, 12, 11, 6, 4, *[3] * 5, *[2] * 20, *[1] * 607]
AUROC, BETTER = 0.95, 0.96
SHARED = 0.9  # correlation of the two arms
CONFIDENCE = 0.95
RESAMPLES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000, metavar="N")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="prompts that a group may give (no limit)")
    options = parser.parse_args()
    for icc in (0.5, 0.9):
        found = simulate(options.simulations, icc, options.limit)
        for name, (judged, percentiles) in found.items():
            print(f"ICC {icc}  {name:12s}  covers {judged:6.1%}  percentiles {percentiles:6.1%}")


def simulate(simulations: int, icc: float, limit: int | None) -> dict[str, tuple[float, float]]:
    """Return by statistic how often the judge's interval covers the truth, and that of the percentiles."""
    sizes = [np.minimum(each, limit or max(each)) for each in (np.array(TARGETS), np.array(OTHERS))]
    groups = np.repeat(np.arange(sum(map(len, sizes))), np.concatenate(sizes))
    labels = np.repeat([True, False], [each.sum() for each in sizes])
    far, farther = (norm.ppf(auroc) * 2**0.5 for auroc in (AUROC, BETTER))
    truth = {"auroc": AUROC, "tpr_at_fpr_1%": float(norm.sf(norm.ppf(0.99) - far)), "difference": BETTER - AUROC}
    rng = np.random.default_rng(0)
    covered: dict[str, list[tuple[bool, bool]]] = {name: [] for name in truth}
    with progress(simulations, f"ICC {icc}", "set") as bar:
        for seed in range(simulations):
            judge = Judge(labels, groups, resamples=RESAMPLES, confidence=CONFIDENCE, seed=seed)
            ours = _noise(rng, groups, icc)
            theirs = SHARED * ours + (1 - SHARED**2) ** 0.5 * _noise(rng, groups, icc)
            scores, better = far * labels + ours, farther * labels + theirs
            resampled = {name: METRICS[name](labels, scores, judge.weights) for name in ("auroc", "tpr_at_fpr_1%")}
            resampled["difference"] = METRICS["auroc"](labels, better, judge.weights) - resampled["auroc"]
            for name, values in resampled.items():
                if name == "difference":
                    value, margin = (
                        judge.value("auroc", better) - judge.value("auroc", scores),
                        judge.errors.margin(values, CONFIDENCE),
                    )
                    low, high = value - margin, value + margin
                else:
                    low, high = judge.errors.interval(judge.value(name, scores), values, CONFIDENCE)
                plain = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
                covered[name].append((low <= truth[name] <= high, bool(plain[0] <= truth[name] <= plain[1])))
            bar.update()
    return {
        name: (float(np.mean([a for a, _ in each])), float(np.mean([b for _, b in each])))
        for name, each in covered.items()
    }


def _noise(rng: np.random.Generator, groups: np.ndarray, icc: float) -> np.ndarray:
    """Unit-variance noise (N), of which the share `icc` is the same in each group."""
    return icc**0.5 * rng.normal(size=groups.max() + 1)[groups] + (1 - icc) ** 0.5 * rng.normal(size=len(groups))


if __name__ == "__main__":
    main()
