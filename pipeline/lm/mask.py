"""Which tokens count: one mask for all that is learned from, measured on and read off activations.

kept       a token whose activations are stored: the prompt's own tokens, and with keep="all" the chat template's, too
candidate  a kept token that is neither the first of the input nor special: the text alone decides
counted    a candidate whose activation at a point is no outlier: its norm is at most OUTLIER_NORM medians. In a prompt
           without any, every kept token that is no outlier counts instead

Language models park attention on a few tokens ("attention sinks"): on the first one, and on others wherever they stand,
often line ends and punctuation (Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks"; Sun et
al. 2024, "Massive Activations in Large Language Models"). Their norms are a hundred times those of other tokens, so a
handful of them would decide scales, means, losses and what is left unexplained.
"""

import numpy as np
import torch
from torch import Tensor

OUTLIER_NORM = 10.0  # medians


def candidates(positions: np.ndarray, token_ids: np.ndarray, special_ids: np.ndarray | list[int]) -> np.ndarray:
    """Return which tokens are candidates, bool (T).

    Args:
        positions: int (T), of the tokens in what the model reads.
        token_ids: int (T).
        special_ids: ids of the special tokens.
    """
    return np.asarray((positions > 0) & ~np.isin(token_ids, special_ids))


def norms_of(rows_TD: Tensor) -> Tensor:
    """Return Euclidean norms of activations of any float type, float64 (T) on the CPU: float32 squares may overflow."""
    rows_TD = rows_TD.cpu() if rows_TD.device.type == "mps" else rows_TD  # which has no float64
    return torch.linalg.vector_norm(rows_TD, dim=1, dtype=torch.float64).cpu()


def norm_limit(norms: np.ndarray, candidate: np.ndarray | None = None) -> float:
    """Return the largest norm that is no outlier: OUTLIER_NORM times the median norm of the candidates.

    Where the median is 0, nothing is an outlier.

    Args:
        norms: float (T), T >= 1.
        candidate: bool (T). With None, or where there is no candidate, the median is over all tokens.
    """
    of = norms if candidate is None or not candidate.any() else norms[candidate]
    median = float(np.median(of))
    return OUTLIER_NORM * median if median > 0 else float(norms.max())


def counted(candidate: np.ndarray, norms: np.ndarray, limit: float, offsets: np.ndarray | None = None) -> np.ndarray:
    """Return the mask of the tokens of N prompts, one prompt after the other, bool (T).

    Args:
        candidate: bool (T).
        norms: float (T).
        limit: see `norm_limit`.
        offsets: int (N + 1); prompt n has the tokens offsets[n]:offsets[n + 1], at least one. None: there is one
        prompt.
    """
    if offsets is None:
        offsets = np.array([0, len(candidate)])
    within = norms <= limit
    found = candidate & within
    without = ~np.logical_or.reduceat(found, offsets[:-1])
    return np.asarray(found | (np.repeat(without, np.diff(offsets)) & within))
