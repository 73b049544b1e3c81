"""Find out on which tokens each latent is active, for all latents in one pass over the activations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from pipeline.activations.store import ActivationStore
from pipeline.core.progress import progress
from pipeline.sae.model import Sae

CHUNK = 2048  # tokens encoded at once: no more are ever dense


@dataclass(frozen=True)
class Firing:
    """Where and how strongly L latents are active, among T kept tokens of N prompts."""

    tokens: Any
    """scipy.sparse.csc_array (T, L), float32: the activations above 0, at counted tokens only."""
    peaks: Any
    """csc_array (N, L): the largest activation in each prompt."""
    offsets: np.ndarray
    """int64 (N + 1); prompt n has the tokens offsets[n]:offsets[n + 1]."""
    counted: np.ndarray
    """bool (T), whether a token counts (see `pipeline.lm.mask`)."""

    @classmethod
    def of(cls, store: ActivationStore, sae: Sae) -> "Firing":
        """Encode all activations of a store. Prompts and tokens are in the order of the store.

        Memory: at most 16 bytes per pair of a token and a latent active on it, and a few thousand dense tokens.
        """
        tokens = _encoded(store, sae)
        return cls(tokens, _peaks(tokens, store.offsets), store.offsets, store.counted)

    @property
    def latents(self) -> int:
        """Number of latents."""
        return int(self.tokens.shape[1])

    def prompts_of(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the prompts in which a latent is active, ascending, and its largest activation in each."""
        span = slice(*self.peaks.indptr[latent : latent + 2])
        return self.peaks.indices[span], self.peaks.data[span]

    def within(self, latent: int, prompt: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of a prompt, from 0, on which a latent is active, and its activations there."""
        span = slice(*self.tokens.indptr[latent : latent + 2])
        rows = self.tokens.indices[span]
        inside = slice(*np.searchsorted(rows, self.offsets[prompt : prompt + 2]))
        return rows[inside] - self.offsets[prompt], self.tokens.data[span][inside]


@torch.no_grad()
def _encoded(store: ActivationStore, sae: Sae) -> Any:
    parts = []
    with progress(len(store), "encoding", "token") as bar:
        for first, rows in store.shard_rows():
            masks = torch.from_numpy(store.counted[first : first + len(rows)]).split(CHUNK)
            for chunk, mask in zip(rows.split(CHUNK), masks, strict=True):
                latents = sae.encode(chunk)
                latents[~mask] = 0
                parts.append(sparse.csr_array(latents.numpy()))
                bar.update(len(chunk))
    return sparse.csr_array(sparse.vstack(parts)).tocsc()


def _peaks(tokens: Any, offsets: np.ndarray) -> Any:
    """Return the largest value per prompt. Rows of a column are in order, so those of one prompt stand together."""
    prompt_of = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    prompt = prompt_of[tokens.indices]
    new = np.diff(prompt, prepend=-1) != 0
    new[tokens.indptr[:-1][np.diff(tokens.indptr) > 0]] = True
    starts = np.flatnonzero(new)
    return sparse.csc_array(
        (np.maximum.reduceat(tokens.data, starts), prompt[starts], np.searchsorted(starts, tokens.indptr)),
        shape=(len(offsets) - 1, tokens.shape[1]),
    )
