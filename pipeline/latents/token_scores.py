"""Find the tokens to which each latent is most specific."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from pipeline.latents.firing import Firing

K1, B = 1.2, 0.75


def token_scores(firing: Firing, token_ids: np.ndarray, k1: float = K1, b: float = B) -> Any:
    """Return the BM25 score of each vocabulary entry for each latent, scipy.sparse.csr_array (L, V).

    V is the largest token id plus 1. Each latent is treated as a document, made of the tokens on which it is active.
    The term frequency tf of a token id is the sum of the latent's activations on it in units of its largest activation,
    so that weak activations count little. |d| is the sum of tf over all ids, and mean |d| is taken over the latents
    that are active at all. With n of the L latents active on the id,

        score = log(1 + (L - n + 0.5) / (n + 0.5)) * tf / (tf + k1 * (1 - b + b * |d| / mean |d|))

    Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", eq. 3.15 and 3.3. The 1 within
    the logarithm is added here, so that an id on which most latents are active does not get a negative score.

    Args:
        token_ids: int (T), the id of each kept token.
    """
    tokens = firing.tokens
    largest = tokens.max(axis=0).toarray().ravel()
    relative = sparse.csc_array(
        (tokens.data / np.repeat(largest, np.diff(tokens.indptr)), tokens.indices, tokens.indptr), shape=tokens.shape
    )
    vocabulary = int(token_ids.max()) + 1
    shape = (len(token_ids), vocabulary)
    which = sparse.csr_array(
        (np.ones(len(token_ids), np.float32), token_ids, np.arange(len(token_ids) + 1)), shape=shape
    )
    scores = sparse.csr_array(relative.T @ which)
    length = scores.sum(axis=1)
    latents = np.bincount(scores.indices, minlength=vocabulary)
    idf = np.log1p((firing.latents - latents + 0.5) / (latents + 0.5))
    damping = k1 * (1 - b + b * length / max(length[length > 0].mean(), 1e-12))
    tf = scores.data
    scores.data = (idf[scores.indices] * tf / (tf + np.repeat(damping, np.diff(scores.indptr)))).astype(np.float32)
    return scores


def specific_tokens(scores: Any, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each latent at most `count` ids with the highest scores, highest first, and these scores."""
    for start, end in zip(scores.indptr[:-1], scores.indptr[1:], strict=True):
        ids, values = scores.indices[start:end], scores.data[start:end]
        highest = np.lexsort((ids, -values))[:count]
        yield ids[highest], values[highest]
