"""Activations to train on: in memory where they fit, else read block by block; shuffled either way."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pipeline.lm.mask import norm_limit, norms_of

CHUNK = 4096  # tokens looked at at once


class Activations:
    """Activations (N, d) in blocks, returned centred on their mean and scaled to a mean norm of sqrt(d).

    Outliers are left out. Stored activations that count have none, but these may come from elsewhere.

    Attributes:
        norm_limit: the norm above which a token is an outlier (see `pipeline.lm.mask`).
        mean: (d).
        scale: factor after centring.
        variance: mean |x|^2 after both.
        tokens: how many are left without outliers.
        d: width of the activations.
    """

    def __init__(
        self, blocks: Sequence[Callable[[], Tensor]], *, memory_mb: float | None = None, device: str = "cpu"
    ) -> None:
        """Measure the activations once, reading each block.

        Args:
            blocks: functions that each read a stretch of the activations, (tokens, d) in any float type, when called.
            memory_mb: how much the blocks in memory at one time may take, if there are several; None: any amount.
        """
        self.device = device
        self._blocks = list(blocks)
        self.d, sizes, norms = 0, [], [torch.empty(0)]
        for block in self._blocks:
            rows = block()
            self.d = rows.shape[1]
            sizes.append(rows.nbytes)
            norms.append(norms_of(rows))
            del rows
        everything = torch.cat(norms).numpy()
        self.norm_limit = norm_limit(everything) if len(everything) else 0.0
        self._kept = [norm <= self.norm_limit for norm in norms[1:]]
        self.tokens = int(sum(kept.sum() for kept in self._kept))
        self._groups = _grouped(sizes, math.inf if memory_mb is None else memory_mb * 1e6)
        self._whole = self._read(self._groups[0]) if len(self._groups) == 1 else None
        self.mean, self.scale, self.variance = self._statistics()

    @classmethod
    def of(cls, acts_ND: Tensor, device: str = "cpu") -> "Activations":
        """Take activations that are in memory already."""
        return cls([lambda: acts_ND] if len(acts_ND) else [], device=device)

    def counted(self, acts_MD: Tensor) -> Tensor:
        """Return those of other activations (M, d) at the same point that are no outliers either."""
        return acts_MD[norms_of(acts_MD) <= self.norm_limit]

    def batches(self, size: int, epoch: int, seed: int) -> Iterator[Tensor]:
        """Yield batches (size, d), float32, of one epoch. What does not fill a batch is left out.

        The order depends on seed and epoch alone. In memory, all tokens are shuffled. Otherwise groups of blocks come
        in random order, as many blocks at a time as fit into memory, and the tokens within a group are shuffled.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        left = torch.empty(0, self.d)
        for group in torch.randperm(len(self._groups), generator=generator).tolist():
            rows = self._group(group)
            order = torch.randperm(len(rows), generator=generator)
            if len(left):  # of the groups before: these tokens come first
                first, order = order[: size - len(left)], order[size - len(left) :]
                left = torch.cat([left, rows[first].to(left.dtype)])
                if len(left) < size:
                    continue
                yield self._prepared(left)
            full = len(order) // size * size
            for start in range(0, full, size):
                yield self._prepared(rows[order[start : start + size]])
            left = rows[order[full:]]
            del rows  # before the next group is read

    def in_order(self) -> Iterator[Tensor]:
        """Yield all tokens in chunks, centred and scaled."""
        return (self._prepared(chunk) for chunk in self._chunks())

    def steps(self, size: int) -> int:
        """Return the number of batches in an epoch."""
        return self.tokens // size

    def _prepared(self, rows: Tensor) -> Tensor:
        return (rows.to(self.device).float() - self.mean) * self.scale

    def _group(self, number: int) -> Tensor:
        return self._read(self._groups[number]) if self._whole is None else self._whole

    def _read(self, group: Sequence[int]) -> Tensor:
        """Return the tokens of some blocks without outliers, with only these and one more block in memory at a time."""
        if len(group) == 1 and self._kept[group[0]].all():
            return self._blocks[group[0]]()
        sizes = [int(self._kept[number].sum()) for number in group]
        result = torch.empty(0)
        for number, part in zip(group, torch.arange(sum(sizes)).split(sizes), strict=True):
            rows = self._blocks[number]()
            if not len(result):
                result = rows.new_empty(sum(sizes), self.d)
            for place, kept in zip(part.split(CHUNK), self._kept[number].nonzero()[:, 0].split(CHUNK), strict=True):
                result[place] = rows[kept]
            del rows
        return result

    def _chunks(self) -> Iterator[Tensor]:
        for number in range(len(self._groups)):
            rows = self._group(number)
            # copies: a view would keep the whole group in memory while the next is read
            yield from (chunk.clone() for chunk in rows.split(CHUNK))
            del rows

    def _statistics(self) -> tuple[Tensor, float, float]:
        total = torch.zeros(self.d, dtype=torch.float64)
        for chunk in self._chunks():
            total += chunk.double().sum(dim=0)
        mean = total / max(self.tokens, 1)
        norm = square = 0.0
        for chunk in self._chunks():
            norms = (chunk.double() - mean).norm(dim=1)
            norm += norms.sum().item()
            square += norms.square().sum().item()
        scale = math.sqrt(self.d) * self.tokens / max(norm, 1e-12)
        variance = max(square / max(self.tokens, 1) * scale**2, 1e-12)
        return mean.float().to(self.device), scale, variance


def _grouped(sizes: Sequence[int], budget: float) -> list[list[int]]:
    """Yield runs of blocks, given their sizes in bytes, that fit in memory together."""
    groups: list[list[int]] = []
    used = 0.0
    for number, size in enumerate(sizes):
        if not groups or used + size > budget:
            groups.append([])
            used = 0.0
        groups[-1].append(number)
        used += size
    return groups
