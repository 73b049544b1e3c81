"""Find out which latents a k-sparse probe would choose again if the prompts were drawn again."""

from typing import Any

import numpy as np

from pipeline.probes.models import BestColumns, Matrix


def stability(
    matrix: Matrix, labels: np.ndarray, groups: np.ndarray, *, k: int, seed: int, resamples: int = 50
) -> dict[str, Any]:
    """Choose k of the columns of the matrix (n, width) again on resamples of whole near-duplicate groups.

    Returns:
        jaccard: the mean of |A and B| / |A or B| over pairs of resamples, A and B being the columns they choose.
        always: how many columns all resamples choose.
        chosen: the share of resamples that choose a column, for columns chosen by at least a tenth of them.
    """
    _, member = np.unique(groups, return_inverse=True)
    rows_of = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[rows_of], np.arange(member.max() + 2))
    rng = np.random.default_rng(seed)
    counts = np.zeros(matrix.shape[1])
    choices = []
    for _ in range(resamples):
        drawn = rng.integers(0, member.max() + 1, member.max() + 1)
        rows = np.concatenate([rows_of[starts[group] : starts[group + 1]] for group in drawn])
        choices.append(set(BestColumns(k).fit(matrix[rows], labels[rows]).columns_.tolist()))
        counts[list(choices[-1])] += 1
    pairs = [(choices[i], choices[j]) for i in range(resamples) for j in range(i)]
    shares = counts / resamples
    often = [column for column in np.argsort(-shares, kind="stable").tolist() if shares[column] >= 0.1]
    return {
        "k": k,
        "jaccard": round(float(np.mean([len(a & b) / len(a | b) for a, b in pairs])), 4),
        "always": int((counts == resamples).sum()),
        "chosen": {str(column): round(float(shares[column]), 2) for column in often},
    }
