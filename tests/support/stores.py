"""Stores of activations that are written by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.activations.store import (
    INDEX,
    ActivationStore,
    shard_name,
    write_index,
    write_manifest,
    write_norms,
    write_shard,
)
from pipeline.lm.mask import candidates, norm_limit, norms_of
from pipeline.lm.tokens import PromptTokens


def written_store(
    folder: Path, point: str, token_ids: Sequence[np.ndarray], shards: Sequence[Tensor], special: int
) -> ActivationStore:
    """Prompts p00, p01, ... of these tokens, all kept; their activations (tokens, width) are in the shards."""
    kept = [np.arange(len(ids), dtype=np.int32) for ids in token_ids]
    tokens = PromptTokens([f"p{number:02d}" for number in range(len(kept))], token_ids, kept, [special])
    write_index(folder / INDEX, [tokens.index(range(len(kept)))])
    for number, rows in enumerate(shards):
        write_shard(folder / point, number, rows)
    norms = norms_of(torch.cat(list(shards)))
    limit = norm_limit(norms.numpy(), candidates(np.concatenate(kept), np.concatenate(token_ids), [special]))
    write_norms(folder / point, norms)
    named = [{"file": shard_name(number), "rows": len(rows)} for number, rows in enumerate(shards)]
    write_manifest(
        folder / point,
        {"width": shards[0].shape[1], "special_ids": [special], "norm_limit": limit, "shards": named},
    )
    return ActivationStore(folder, point)


def everything(store: ActivationStore) -> Tensor:
    """All rows, those that do not count as well."""
    return store.read(np.ones(len(store), dtype=bool))
