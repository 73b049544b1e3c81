"""Statistics that several rooms need."""

import numpy as np


def effective_number(sizes: np.ndarray) -> float:
    """Return the number of equal groups that would be as informative: (sum of sizes)^2 / sum of squares (Kish 1965)."""
    sizes = np.asarray(sizes, dtype=np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum()) if len(sizes) else 0.0
