"""Save work: do not run tokens after the last kept one, and run a beginning that all prompts share only once."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.points import Point
from pipeline.lm.capture import Capture

_PROBE_TOKENS = 8
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 5e-2  # relative error in float32, and in half precision


def is_causal(capture: Capture) -> bool:
    """Return whether a token's activations stay the same whatever follows it. This is tried by changing what follows.

    A causal model returns exactly the same rows. A causal model whose kernels round differently is taken for one that
    is not; that costs time, but changes no result.
    """
    device, half = capture.device, _PROBE_TOKENS // 2
    ids = torch.arange(_PROBE_TOKENS, device=device)[None]
    changed = torch.cat([ids[:, :half], ids[:, half:] + half], dim=1)
    rows = torch.arange(half, device=device)
    mask = torch.ones_like(ids)
    one, _ = capture.forward(rows, input_ids=ids, attention_mask=mask)
    other, _ = capture.forward(rows, input_ids=changed, attention_mask=mask)
    return all(_relative_error(one[point], other[point]) <= 1e-5 for point in one)


def shared_length(ids: Sequence[np.ndarray], ends: Sequence[int]) -> int:
    """Return how many first tokens all N inputs share, leaving each at least one more. `ends`: where each is cut."""
    shared = ids[0][: min(ends) - 1]
    for other in ids:
        different = np.flatnonzero(other[: len(shared)] != shared)
        if len(different):
            shared = shared[: different[0]]
    return len(shared)


class SharedPrefix:
    """The first P tokens of all prompts, run once: their KV cache and their activations.

    Attributes:
        ids: the tokens (P).
        rows: activations (P, width) by point, on the model's device.
    """

    def __init__(self, ids: np.ndarray, rows: dict[Point, Tensor], cache: Any) -> None:
        self.ids = ids
        self.rows = rows
        self._cache = cache

    def __len__(self) -> int:
        return len(self.ids)

    def cache(self, batch: int) -> Any:
        """Return a KV cache of the prefix for `batch` sequences, to which the forward pass may append."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(batch)
        return cache

    @classmethod
    def of(cls, capture: Capture, ids: np.ndarray, sample: np.ndarray) -> "SharedPrefix | None":
        """Run a causal model on the prefix `ids`.

        Args:
            sample: the whole input of one of the prompts, on which the cache is tested.

        Returns: None when the model has no KV cache, or computes other activations with it.
        """
        device = capture.device
        everything = torch.arange(len(ids), device=device)
        inputs = torch.from_numpy(ids).long()[None].to(device)
        rows, output = capture.forward(
            everything, input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=True
        )
        cache = getattr(output, "past_key_values", None)
        if not hasattr(cache, "batch_repeat_interleave"):
            return None
        prefix = cls(ids, rows, cache)
        whole = torch.from_numpy(sample).long()[None].to(device)
        mask = torch.ones_like(whole)
        rest = torch.arange(len(ids), len(sample), device=device)
        plain, _ = capture.forward(rest, input_ids=whole, attention_mask=mask, use_cache=False)
        reused, _ = capture.forward(
            rest - len(ids),
            input_ids=whole[:, len(ids) :],
            attention_mask=mask,
            past_key_values=prefix.cache(1),
            use_cache=True,
        )
        tolerance = _HALF_TOLERANCE if capture.dtype in (torch.float16, torch.bfloat16) else _TOLERANCE
        agrees = all(_relative_error(plain[point], reused[point]) <= tolerance for point in plain)
        return prefix if agrees else None


def _relative_error(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).norm() / a.float().norm())
