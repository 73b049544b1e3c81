"""Which tokens count: one mask for all that is learned from, measured on and read off activations.

kept       the tokens whose activations are stored: the prompt's own, with `keep` all the chat template's as well
candidate  kept, and neither the first token of the input nor a special one: the text alone decides
counted    a candidate whose activation at a point is no outlier: its norm is at most OUTLIER_NORM medians. Of a prompt
           that has none of these, any kept token that is no outlier

Language models park attention on a few tokens ("attention sinks"): the first one, and others wherever they stand,
often line ends and punctuation (Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks"; Sun et
al. 2024, "Massive Activations in Large Language Models"). Their norms are a hundred times the others', so a handful of
them would decide scales, means, losses and what is left unexplained.
"""

import numpy as np
import torch
from torch import Tensor

OUTLIER_NORM = 10.0  # medians


def candidates(positions: np.ndarray, token_ids: np.ndarray, special_ids: np.ndarray | list[int]) -> np.ndarray:
    """Bool (T). positions: int (T), of tokens in what the model reads; token_ids: int (T)."""
    return np.asarray((positions > 0) & ~np.isin(token_ids, special_ids))


def norms_of(rows_TD: Tensor) -> Tensor:
    """Euclidean norms of activations of any float type, float64 (T) on the CPU: squares of float32 may overflow it."""
    rows_TD = rows_TD.cpu() if rows_TD.device.type == "mps" else rows_TD  # which has no float64
    return torch.linalg.vector_norm(rows_TD, dim=1, dtype=torch.float64).cpu()


def norm_limit(norms: np.ndarray, candidate: np.ndarray | None = None) -> float:
    """The largest norm that is no outlier: OUTLIER_NORM medians of the candidates' norms.

    Args:
        norms: float (T), T >= 1; candidate: bool (T); None, or where none is: the median is over all.

    Where the median is 0 nothing is an outlier.
    """
    of = norms if candidate is None or not candidate.any() else norms[candidate]
    median = float(np.median(of))
    return OUTLIER_NORM * median if median > 0 else float(norms.max())


def counted(candidate: np.ndarray, norms: np.ndarray, limit: float, offsets: np.ndarray | None = None) -> np.ndarray:
    """The mask, bool (T), of the tokens of N prompts, one after the other.

    Args:
        candidate: bool (T); norms: float (T); limit: see `norm_limit`.
        offsets: int (N + 1), prompt n has the tokens offsets[n]:offsets[n + 1], at least one; None: it is one prompt.
    """
    if offsets is None:
        offsets = np.array([0, len(candidate)])
    within = norms <= limit
    found = candidate & within
    without = ~np.logical_or.reduceat(found, offsets[:-1])
    return np.asarray(found | (np.repeat(without, np.diff(offsets)) & within))
