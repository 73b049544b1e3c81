"""From one vector a token to one vector a prompt."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from pipeline.activations.store import ActivationStore
from pipeline.errors import UserError
from pipeline.progress import progress

CHUNK = 2048  # tokens encoded at once
Matrix: TypeAlias = Any  # a numpy array, or a scipy.sparse.csr_array


def pooled(
    store: ActivationStore,
    prompt_ids: Sequence[str],
    poolings: Sequence[str],
    views: Callable[[Tensor], Mapping[str, Tensor]],
    sparse_views: Collection[str] = (),
) -> dict[str, dict[str, Matrix]]:
    """Features (prompts, width) of the given prompts, in their order, for each view and pooling, in one pass.

    Args:
        poolings: `mean`, `max` and `last` of the usable tokens (not first, not special), see `pooled_tokens`.
        views: makes of activations (tokens, d), float32, what is to be pooled: views by name, (tokens, width) each.
        sparse_views: the views whose features are returned as sparse matrices; no more than a few thousand tokens
            are ever dense at once.

    Raises: UserError when the store lacks a prompt.
    """
    place = {prompt_id: number for number, prompt_id in enumerate(store.prompt_ids)}
    missing = next((prompt_id for prompt_id in prompt_ids if prompt_id not in place), None)
    if missing is not None:
        raise UserError(f"{store.folder} has no activations of prompt {missing}: run 'dvc repro' to extract again")
    wanted = np.zeros(len(store.prompt_ids), dtype=bool)
    wanted[[place[prompt_id] for prompt_id in prompt_ids]] = True

    pieces: dict[str, dict[str, list[Matrix]]] = {}
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


def pooled_tokens(usable: np.ndarray) -> np.ndarray:
    """Which of one prompt's tokens are pooled, as places: those of which bool (tokens) is true, or all if none is."""
    return np.flatnonzero(usable) if usable.any() else np.arange(len(usable))


def _chunks(
    store: ActivationStore, start: int, end: int, rows: Tensor, wanted: np.ndarray
) -> Iterator[tuple[list[int], Tensor, np.ndarray]]:
    """Cut a shard into (prompt numbers, their usable rows, where each prompt starts in them)."""
    first = store.offsets[start]
    numbers: list[int] = []
    places: list[np.ndarray] = []
    for number in np.flatnonzero(wanted[start:end]) + start:
        span = np.arange(store.offsets[number], store.offsets[number + 1])
        numbers.append(int(number))
        places.append(span[pooled_tokens(store.usable[span])] - first)
        if sum(map(len, places)) >= CHUNK:
            yield _chunk(numbers, places, rows)
            numbers, places = [], []
    if numbers:
        yield _chunk(numbers, places, rows)


def _chunk(numbers: list[int], places: list[np.ndarray], rows: Tensor) -> tuple[list[int], Tensor, np.ndarray]:
    starts = np.cumsum([0, *(len(place) for place in places[:-1])])
    return numbers, rows[torch.from_numpy(np.concatenate(places))], starts


def _mean(states: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.stack([part.mean(axis=0) for part in np.split(states, starts[1:])])


def _max(states: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.stack([part.max(axis=0) for part in np.split(states, starts[1:])])


def _last(states: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.asarray(states[np.append(starts[1:], len(states)) - 1])


def _stack_sparse(parts: Sequence[Matrix]) -> sparse.csr_array:
    return sparse.csr_array(sparse.vstack(parts))


# of states (tokens, width), and where each prompt starts in them: (prompts, width)
POOLINGS = {"mean": _mean, "max": _max, "last": _last}
