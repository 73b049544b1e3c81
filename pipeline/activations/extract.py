"""Running a model over prompts and writing what passes the hook points, shard by shard."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.activations.batches import length_sorted_batches, pad
from pipeline.activations.capture import capturing
from pipeline.activations.store import INDEX, write_manifest, write_shard
from pipeline.activations.tokens import PromptTokens
from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.points import Point
from pipeline.progress import progress

if TYPE_CHECKING:  # importing transformers takes seconds that readers of activations need not spend
    from transformers import PreTrainedModel


@torch.inference_mode()
def extract(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    points: Sequence[Point],
    folder: Path,
    *,
    batch_tokens: int,
    dtype: torch.dtype = torch.float16,
    shard_mb: int = 64,
) -> dict[str, Any]:
    """Write the activations of all kept tokens at all points, in one pass over the prompts.

    A shard is a run of whole prompts; within it prompts are batched by length, and put back in order before
    it is written, so memory holds one shard a point whatever the number of prompts.

    Args:
        batch_tokens: padded-token budget of a batch.
        dtype: of the stored activations.
        shard_mb: largest size of a shard, in MB (a longer prompt is a shard of its own).

    Returns: counts for the metrics: prompts, tokens read, tokens kept, share of padding, the median norm of
        the activations of each point.
    Raises: UserError naming prompt, token and point when an activation is not finite.
    """
    names = {point: str(point) for point in points}
    width: int = model.config.hidden_size
    shards: dict[Point, list[dict[str, Any]]] = {point: [] for point in points}
    norms: dict[Point, list[Tensor]] = {point: [] for point in points}
    padded = 0
    rows_in_shard = shard_mb * 1_000_000 // (width * dtype.itemsize)
    real = sum(len(ids) for ids in tokens.ids)
    with progress(real, "extracting activations", "token") as bar, capturing(model, points) as captured:
        for number, prompts in enumerate(_shards([len(kept) for kept in tokens.kept], rows_in_shard)):
            buffers, used = _run_shard(model, tokens, prompts, captured, points, dtype, batch_tokens, bar)
            padded += used
            for point, rows in buffers.items():
                _check_finite(rows, tokens, prompts, point, dtype)
                shards[point].append(write_shard(folder / names[point], number, rows))
                norms[point].append(rows.float().norm(dim=1))
    write_table(folder / INDEX, tokens.index())
    for point in points:
        write_manifest(
            folder / names[point],
            {
                "point": names[point],
                "width": width,
                "dtype": str(dtype).removeprefix("torch."),
                "special_ids": list(tokens.special_ids),
                "shards": shards[point],
            },
        )
    return {
        "prompts": len(tokens.ids),
        "tokens_read": real,
        "tokens_kept": sum(len(kept) for kept in tokens.kept),
        "padding_share": 1 - real / padded,
        "median_norm": {names[point]: torch.cat(norms[point]).median().item() for point in points},
    }


def _shards(kept: Sequence[int], rows_in_shard: int) -> Iterator[range]:
    """Cut the prompts into runs of at most `rows_in_shard` kept tokens, at least one prompt each."""
    start = rows = 0
    for prompt, count in enumerate(kept):
        if rows and rows + count > rows_in_shard:
            yield range(start, prompt)
            start, rows = prompt, 0
        rows += count
    if rows:
        yield range(start, len(kept))


def _run_shard(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    prompts: range,
    captured: dict[Point, Tensor],
    points: Sequence[Point],
    dtype: torch.dtype,
    batch_tokens: int,
    bar: Any,
) -> tuple[dict[Point, Tensor], int]:
    """The rows (kept tokens, width) of one shard for each point, and the padded tokens that were run."""
    ends = torch.tensor([len(tokens.kept[prompt]) for prompt in prompts]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    buffers = {point: torch.empty(ends[-1], model.config.hidden_size, dtype=dtype) for point in points}
    pad_id = model.config.pad_token_id or 0
    padded = 0
    for batch in length_sorted_batches([len(tokens.ids[prompt]) for prompt in prompts], batch_tokens):
        ids, mask = pad([torch.from_numpy(tokens.ids[prompts[index]]) for index in batch], pad_id)
        arguments = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
        model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **arguments)
        for point in points:
            states = captured.pop(point).to("cpu", dtype)
            for row, index in enumerate(batch):
                kept = torch.from_numpy(tokens.kept[prompts[index]])
                buffers[point][starts[index] : ends[index]] = states[row, kept]
        padded += ids.numel()
        bar.update(int(mask.sum()))
    return buffers, padded


def _check_finite(rows: Tensor, tokens: PromptTokens, prompts: range, point: Point, dtype: torch.dtype) -> None:
    bad = (~rows.isfinite()).any(dim=1).nonzero()
    if len(bad) == 0:
        return
    row = int(bad[0])
    for prompt in prompts:
        kept = tokens.kept[prompt]
        if row < len(kept):
            kind = "NaN" if rows[int(bad[0])].isnan().any() else "infinite"
            wider = {torch.float16: "bfloat16 or float32", torch.bfloat16: "float32"}.get(dtype)
            remedy = f"set extract.dtype to {wider}" if wider and kind == "infinite" else "check the model's weights"
            raise UserError(
                f"activation at {point} is {kind} for prompt {tokens.prompt_ids[prompt]}, token {kept[row]}: {remedy}"
            )
        row -= len(kept)
