"""Batches of prompts of similar length, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def length_sorted_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield lists of indices, longest first, with (longest x prompts) <= `budget` padded tokens in each.

    A prompt longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        size = max(budget // max(lengths[order[start]], 1), 1)
        yield order[start : start + size]
        start += size


def pad(sequences: Sequence[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-pad int64 sequences to (batch, longest); also return the attention mask, 1 for real tokens."""
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids, mask
