"""How often labels are wrong."""

import numpy as np


def label_noise(labels: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """How often labels are wrong, from pairs of near-duplicates whose labels disagree.

    If each label is flipped with probability e, independently, and near-duplicates should have the same, a share
    2 e (1 - e) of the pairs disagrees; `error_rate` is that e. No classifier can be expected to be right more often
    than 1 - e on such prompts. NaN without pairs. Too low where exact duplicates that disagree were dropped before.
    """
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    targets = np.bincount(member, weights=labels)
    pairs = float((sizes * (sizes - 1) / 2).sum())
    disagreeing = float((targets * (sizes - targets)).sum())
    share = disagreeing / pairs if pairs else float("nan")
    return {"pairs": pairs, "disagreeing": disagreeing, "error_rate": (1 - max(1 - 2 * share, 0.0) ** 0.5) / 2}
