"""Activations on disk: a folder a point, of safetensors shards, a manifest, and one index of tokens for all.

<folder>/tokens.parquet              prompt_id, position, token_id: one row a kept token
<folder>/<point>/00000.safetensors   tensor `activations` (rows, width), rows in the order of the index
<folder>/<point>/manifest.json       shards with their rows, width, dtype; written last
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import read_json, read_table, replacing, write_json

MANIFEST = "manifest.json"
INDEX = "tokens.parquet"
TENSOR = "activations"


def shard_name(number: int) -> str:
    return f"{number:05d}.safetensors"


def write_shard(folder: Path, number: int, rows: Tensor) -> None:
    """Write one shard (rows, width)."""
    with replacing(folder / shard_name(number)) as temporary:
        save_file({TENSOR: rows.contiguous()}, temporary)


def write_index(path: Path, parts: Iterable[pa.Table]) -> None:
    """Write the index part by part, so that it is never in memory as a whole."""
    with replacing(path) as temporary, ExitStack() as closing:
        writer: pq.ParquetWriter | None = None
        for part in parts:
            if writer is None:
                writer = closing.enter_context(pq.ParquetWriter(temporary, part.schema, compression="zstd"))
            writer.write_table(part)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, manifest)


class ActivationStore:
    """The activations of one point, with the prompts they belong to.

    prompt_ids: N ids in order; offsets: int64 (N + 1), prompt n has the rows offsets[n]:offsets[n + 1];
    usable: bool (rows), False for first and special tokens, which pooling and training leave out (the first
    token of a sequence is an attention sink, with norms many times the others').
    """

    def __init__(self, folder: Path, point: str) -> None:
        """Raise UserError when files are missing, damaged, or do not belong together."""
        self.folder = folder / point
        manifest = read_json(self.folder / MANIFEST)
        index = read_table(folder / INDEX)
        self.width: int = manifest["width"]
        self.shards: list[dict[str, Any]] = manifest["shards"]
        if sum(shard["rows"] for shard in self.shards) != index.num_rows:
            raise UserError(
                f"{self.folder} has {sum(shard['rows'] for shard in self.shards)} rows where {folder / INDEX} has "
                f"{index.num_rows}: run 'dvc repro' to extract again"
            )
        ids = index["prompt_id"].to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        self.prompt_ids: list[str] = ids[starts].tolist()
        self.offsets = np.append(starts, len(ids)).astype(np.int64)
        special = np.isin(index["token_id"].to_numpy(), manifest["special_ids"])
        self.usable = ~special & (index["position"].to_numpy() > 0)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def shard_rows(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, activations (rows, width) in the stored dtype) shard by shard."""
        first = 0
        for number in range(len(self.shards)):
            rows = self.shard(number)
            yield first, rows
            first += len(rows)

    def shard(self, number: int) -> Tensor:
        """The activations (rows, width) of one shard, in the stored dtype."""
        path = self.folder / self.shards[number]["file"]
        try:
            with safe_open(path, framework="pt") as file:
                rows: Tensor = file.get_tensor(TENSOR)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is missing or damaged ({error}): run 'dvc repro' to extract again") from None
        if rows.shape != (self.shards[number]["rows"], self.width):
            raise UserError(f"{path} is not the shard of its manifest: run 'dvc repro' to extract again")
        return rows

    def readers(self, rows: np.ndarray) -> list[Callable[[], Tensor]]:
        """For each shard a function that reads its activations where the bool array `rows` (len(self)) is true."""
        wanted = torch.from_numpy(rows).split([shard["rows"] for shard in self.shards])
        return [
            partial(lambda number, mask: self.shard(number)[mask], number, mask) for number, mask in enumerate(wanted)
        ]

    def prompts(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield (first prompt, end prompt, rows) shard by shard: shards hold whole prompts."""
        for first, rows in self.shard_rows():
            start, end = np.searchsorted(self.offsets, [first, first + len(rows)])
            yield int(start), int(end), rows

    def read(self, rows: np.ndarray | None = None) -> Tensor:
        """The activations of the rows where the bool array `rows` (len(self)) is true, or of all."""
        if rows is None:
            return torch.cat([shard for _, shard in self.shard_rows()])
        wanted = torch.from_numpy(rows)
        return torch.cat([shard[wanted[first : first + len(shard)]] for first, shard in self.shard_rows()])
