"""Pooling: from one vector per token to one vector per prompt."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from pipeline.activations.store import ActivationStore
from pipeline.core.progress import progress

CHUNK = 2048  # tokens encoded at once
Pooled: TypeAlias = Any  # a numpy array, or a scipy.sparse.csr_array


def pooled(
    store: ActivationStore,
    prompt_ids: Sequence[str],
    poolings: Sequence[str],
    views: Callable[[Tensor], Mapping[str, Tensor]],
    sparse_views: Collection[str] = (),
) -> dict[str, dict[str, Pooled]]:
    """Return the pooled features of some prompts, for each view and pooling, in one pass over the activations.

    Args:
        store: the activations.
        prompt_ids: the prompts wanted; rows of the result are in their order.
        poolings: any of `mean`, `max` and `last`, taken over the tokens of a prompt that count. A prompt without
            such tokens gets zeros.
        views: turns activations, float32 (tokens, d), into the features to pool: views (tokens, width) by name.
        sparse_views: names of views whose features are returned as sparse matrices. Only a few thousand tokens of
            them are dense at a time.

    Returns: by view and pooling, features (prompts, width): a numpy array, or a scipy.sparse.csr_array.
    Raises: UserError when the store lacks a prompt.
    """
    store.check_has(prompt_ids)
    place = store.place_of
    wanted = np.zeros(len(store.prompt_ids), dtype=bool)
    wanted[[place[prompt_id] for prompt_id in prompt_ids]] = True

    pieces: dict[str, dict[str, list[Pooled]]] = {}
    order: list[int] = []
    with progress(len(prompt_ids), "pooling", "prompt") as bar:
        for start, end, rows in store.prompts():
            for numbers, chunk, starts in _chunks(store, start, end, rows, wanted):
                for view, states in views(chunk.float()).items():
                    by_pooling = pieces.setdefault(view, {pooling: [] for pooling in poolings})
                    for pooling in poolings:
                        features = POOLINGS[pooling](states.numpy(), starts)
                        by_pooling[pooling].append(sparse.csr_array(features) if view in sparse_views else features)
                order.extend(numbers)
                bar.update(len(numbers))
    row_of = {number: row for row, number in enumerate(order)}
    rows_wanted = [row_of[place[prompt_id]] for prompt_id in prompt_ids]
    return {
        view: {
            pooling: (_stack_sparse if view in sparse_views else np.concatenate)(parts)[rows_wanted]
            for pooling, parts in by_pooling.items()
        }
        for view, by_pooling in pieces.items()
    }


def _chunks(
    store: ActivationStore, start: int, end: int, rows: Tensor, wanted: np.ndarray
) -> Iterator[tuple[list[int], Tensor, np.ndarray]]:
    """Cut a shard into chunks: prompt numbers, their rows that count, and where each prompt starts among these."""
    first = store.offsets[start]
    numbers: list[int] = []
    places: list[np.ndarray] = []
    for number in np.flatnonzero(wanted[start:end]) + start:
        span = np.arange(store.offsets[number], store.offsets[number + 1])
        numbers.append(int(number))
        places.append(span[store.counted[span]] - first)
        if sum(map(len, places)) >= CHUNK:
            yield _chunk(numbers, places, rows)
            numbers, places = [], []
    if numbers:
        yield _chunk(numbers, places, rows)


def _chunk(numbers: list[int], places: list[np.ndarray], rows: Tensor) -> tuple[list[int], Tensor, np.ndarray]:
    starts = np.cumsum([0, *(len(place) for place in places[:-1])])
    return numbers, rows[torch.from_numpy(np.concatenate(places))], starts


def _by_prompt(
    pool: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def of(states: np.ndarray, starts: np.ndarray) -> np.ndarray:
        nothing = np.zeros(states.shape[1], dtype=states.dtype)
        return np.stack([pool(part) if len(part) else nothing for part in np.split(states, starts[1:])])

    return of


def _stack_sparse(parts: Sequence[Pooled]) -> sparse.csr_array:
    return sparse.csr_array(sparse.vstack(parts))


# of states (tokens, width), and where each prompt starts in them: (prompts, width)
POOLINGS = {
    "mean": _by_prompt(lambda part: part.mean(axis=0)),
    "max": _by_prompt(lambda part: part.max(axis=0)),
    "last": _by_prompt(lambda part: part[-1]),
}
