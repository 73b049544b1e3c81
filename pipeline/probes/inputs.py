"""What classifiers fitted by gradient descent read of prompts: one vector for each, or one for each of its tokens."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.activations.store import ActivationStore


class Inputs(Protocol):
    """Vectors of prompts."""

    def of(self, prompts: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the vectors of these prompts, float32 (T, width), and which of `prompts` each is of (T).

        Every prompt has at least one. The vectors are new, and may be changed.
        """


class Vectors:
    """One vector for each prompt: pooled features (N, width)."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    def of(self, prompts: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.matrix[prompts]).float(), torch.arange(len(prompts))


class Tokens:
    """The activations of each prompt's tokens that count, read from the files where they are stored.

    The files are mapped into memory, not copied: what is read again comes from the system's cache, as far as that goes.
    A prompt without tokens that count has one of zeros, as in pooling.
    """

    def __init__(self, store: ActivationStore, prompt_ids: Sequence[str]) -> None:
        """prompt_ids: of the N prompts. Raise UserError when the store lacks one."""
        store.check_has(prompt_ids)
        self.firsts, self.shards = map(list, zip(*store.shard_rows(), strict=True))
        self.width = store.width
        places = [store.place_of[prompt_id] for prompt_id in prompt_ids]
        spans = [np.arange(store.offsets[place], store.offsets[place + 1]) for place in places]
        self.rows = [span[store.counted[span]] for span in spans]

    def of(self, prompts: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = [self.rows[prompt] for prompt in prompts]
        row, prompt = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        without = np.flatnonzero([len(each) == 0 for each in rows])
        states, of = [torch.zeros(len(without), self.width)], [without]
        for first, shard in zip(self.firsts, self.shards, strict=True):
            here = (row >= first) & (row < first + len(shard))
            if here.any():
                states.append(shard[torch.from_numpy(row[here] - first)].float())
                of.append(prompt[here])
        return torch.cat(states), torch.from_numpy(np.concatenate(of))


def means(inputs: Inputs, prompts: np.ndarray) -> np.ndarray:
    """Mean vectors of prompts, float32 (n, width)."""
    parts = []
    for some in chunks(prompts):
        x, prompt = inputs.of(some)
        counts = torch.bincount(prompt, minlength=len(some))[:, None]
        parts.append(torch.zeros(len(some), x.shape[1]).index_add(0, prompt, x) / counts)
    return torch.cat(parts).numpy()


def chunks(prompts: np.ndarray, size: int = 128) -> list[np.ndarray]:
    """Cut an array of prompts into arrays of about, and at most, `size`."""
    return np.array_split(prompts, -(-len(prompts) // size))
