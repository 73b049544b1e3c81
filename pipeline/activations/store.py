"""Activations on disk: one folder per point, and one index of tokens for all points.

<folder>/tokens.parquet              the index, one row per kept token: prompt_id, position, token_id
<folder>/<point>/00000.safetensors   a shard: tensor `activations` (rows, width), rows in the index's order
<folder>/<point>/norms.safetensors   tensor `norms` (rows): the norm of each activation of all shards
<folder>/<point>/manifest.json       names and sizes of the shards, width, dtype, ids of special tokens, and the
                                     norm above which a token is an outlier; written last
"""

from collections.abc import Callable, Collection, Iterable, Iterator
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

from pipeline.core.errors import FileError
from pipeline.core.files import damaged, read_json, read_table, replacing, write_json
from pipeline.core.points import Point
from pipeline.lm.mask import candidates, counted

MANIFEST = "manifest.json"
INDEX = "tokens.parquet"
TENSOR = "activations"
NORMS, NORMS_TENSOR = "norms.safetensors", "norms"
REMEDY = "give a folder that pipeline.activations.extract wrote"
_IN_MANIFEST = ("width", "shards", "special_ids", "norm_limit")


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"{number:05d}.safetensors"


def write_shard(folder: Path, number: int, rows: Tensor) -> None:
    """Write one shard of activations (rows, width)."""
    with replacing(folder / shard_name(number)) as temporary:
        save_file({TENSOR: rows.contiguous()}, temporary)


def write_norms(folder: Path, norms: Tensor) -> None:
    """Write the norms of all rows of a point, float64 (rows)."""
    with replacing(folder / NORMS) as temporary:
        save_file({NORMS_TENSOR: norms.contiguous()}, temporary)


def write_index(path: Path, parts: Iterable[pa.Table]) -> None:
    """Write the index part by part, so that it is never in memory as a whole."""
    with replacing(path) as temporary, ExitStack() as closing:
        writer: pq.ParquetWriter | None = None
        for part in parts:
            if writer is None:
                writer = closing.enter_context(pq.ParquetWriter(temporary, part.schema, compression="zstd"))
            writer.write_table(part)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a point's manifest, which says that its shards are complete."""
    write_json(folder / MANIFEST, manifest)


def sampled(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw at most `most` of the rows where the bool array `rows` is true; return them as bool (rows)."""
    chosen = np.flatnonzero(rows)
    if len(chosen) > most:
        chosen = np.random.default_rng(seed).choice(chosen, most, replace=False)
    sample = np.zeros_like(rows)
    sample[chosen] = True
    return sample


class ActivationStore:
    """The activations of one point, and the prompts that they belong to.

    Attributes:
        point: where in the model they were taken.
        width: numbers per activation.
        shards: file name and number of rows of each shard.
        prompt_ids: ids of the N prompts, in order.
        place_of: the number of a prompt, by id.
        offsets: int64 (N + 1); prompt n has the rows offsets[n]:offsets[n + 1].
        counted: bool (rows), whether a token counts (see `pipeline.lm.mask`).
        norm_limit: the norm above which a token is an outlier, also for prompts that are run later.
    """

    def __init__(self, folder: Path | str, point: str) -> None:
        """Open the store in `folder` at `point`, written as SITE.LAYER.

        Raises: UserError when files are missing, damaged, or do not belong together.
        """
        folder = Path(folder)
        self.folder = folder / point
        self.point = Point.parse(point)
        manifest = read_json(self.folder / MANIFEST, REMEDY)
        index = read_table(folder / INDEX)
        missing = [key for key in _IN_MANIFEST if not isinstance(manifest, dict) or key not in manifest]
        if missing:
            raise FileError(f"{self.folder / MANIFEST} has no {missing[0]}", REMEDY)
        self.width: int = manifest["width"]
        self.shards: list[dict[str, Any]] = manifest["shards"]
        if sum(shard["rows"] for shard in self.shards) != index.num_rows:
            rows = sum(shard["rows"] for shard in self.shards)
            raise FileError(f"{self.folder} has {rows} rows where {folder / INDEX} has {index.num_rows}", REMEDY)
        ids = index["prompt_id"].to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        self.prompt_ids: list[str] = ids[starts].tolist()
        self.offsets = np.append(starts, len(ids)).astype(np.int64)
        self.place_of = {prompt_id: place for place, prompt_id in enumerate(self.prompt_ids)}
        if len(self.place_of) < len(self.prompt_ids):
            raise FileError(f"{folder / INDEX} has tokens of a prompt in two places", REMEDY)
        self.norm_limit: float = manifest["norm_limit"]
        candidate = candidates(index["position"].to_numpy(), index["token_id"].to_numpy(), manifest["special_ids"])
        self.counted = counted(candidate, self._norms(len(ids)), self.norm_limit, self.offsets)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def _norms(self, rows: int) -> np.ndarray:
        path = self.folder / NORMS
        norms = self._tensor(path, NORMS_TENSOR)
        if norms.shape != (rows,):
            raise FileError(f"{path} is not of the rows of its manifest", REMEDY)
        return np.asarray(norms.numpy())

    def rows_of(self, prompt_ids: Collection[str]) -> np.ndarray:
        """Return which rows belong to these prompts and count, bool (rows)."""
        wanted = np.array([prompt_id in prompt_ids for prompt_id in self.prompt_ids])
        return np.repeat(wanted, np.diff(self.offsets)) & self.counted

    def check_has(self, prompt_ids: Iterable[str]) -> None:
        """Raise UserError when a prompt is missing."""
        for prompt_id in prompt_ids:
            if prompt_id not in self.place_of:
                raise FileError(f"{self.folder} has no activations of prompt {prompt_id}", REMEDY)

    def shard_rows(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each shard as (number of its first row, activations (rows, width) in the stored dtype)."""
        first = 0
        for number in range(len(self.shards)):
            rows = self.shard(number)
            yield first, rows
            first += len(rows)

    def shard(self, number: int) -> Tensor:
        """Read the activations (rows, width) of one shard, in the stored dtype."""
        path = self.folder / self.shards[number]["file"]
        rows = self._tensor(path, TENSOR)
        if rows.shape != (self.shards[number]["rows"], self.width):
            raise FileError(f"{path} is not the shard of its manifest", REMEDY)
        return rows

    def _tensor(self, path: Path, name: str) -> Tensor:
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise damaged(path, error, REMEDY) from None
        return tensor

    def readers(self, rows: np.ndarray) -> list[Callable[[], Tensor]]:
        """Return one function per shard, which reads those of its activations where the bool array `rows` is true.

        `rows` is as long as the store.
        """
        wanted = torch.from_numpy(rows).split([shard["rows"] for shard in self.shards])
        return [
            partial(lambda number, mask: self.shard(number)[mask], number, mask) for number, mask in enumerate(wanted)
        ]

    def prompts(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield each shard as (its first prompt, the prompt after its last, activations). Shards hold whole prompts."""
        for first, rows in self.shard_rows():
            start, end = np.searchsorted(self.offsets, [first, first + len(rows)])
            yield int(start), int(end), rows

    def read(self, rows: np.ndarray | None = None) -> Tensor:
        """Read the activations where `rows`, bool (len(self)), is true; by default those of the tokens that count."""
        wanted = torch.from_numpy(self.counted if rows is None else rows)
        return torch.cat([shard[wanted[first : first + len(shard)]] for first, shard in self.shard_rows()])
