"""Run a model over prompts and write the activations at the hook points, shard by shard."""

import ctypes
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.activations.ranks import Ranks, joined
from pipeline.activations.resume import Pieces, content_key
from pipeline.activations.store import INDEX, shard_name, write_index, write_manifest, write_norms
from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.core.progress import progress
from pipeline.lm.forward import PromptForward, Rows
from pipeline.lm.mask import counted, norm_limit, norms_of
from pipeline.lm.tokens import PromptTokens

if TYPE_CHECKING:  # importing transformers takes seconds that readers of activations need not spend
    from transformers import PreTrainedModel

# Prompts are sorted by length within a shard: larger ones pad less, smaller ones need less memory, are easier
# shared among processes, and lose less when a run is stopped.
_SHARD_TOKENS = 32_768


def extract(
    model: "PreTrainedModel",
    tokens: PromptTokens,
    points: Sequence[Point],
    folder: Path | str,
    *,
    batch_tokens: int,
    dtype: torch.dtype = torch.float16,
    shard_mb: int = 256,
    pieces: Path | None = None,
    model_key: str | None = None,
) -> dict[str, Any]:
    """Write the activations of all kept tokens at all points, in one pass over the prompts.

    Activations that were in `folder` before are replaced. Shards hold whole prompts. Within a shard, prompts are
    batched by length and put back in order before the shard is written. One shard is written while the next is
    computed, so memory holds two shards per point, whatever the number of prompts. A run that is killed loses the
    shard it works on, and the one before if that is not written yet. Under torchrun, the processes share the shards
    and all return the same counts.

    Args:
        model: the language model, on the device that it is to run on.
        tokens: the tokenised prompts.
        points: where to take activations.
        folder: what `ActivationStore` reads later.
        batch_tokens: largest number of tokens in a batch, padding included.
        dtype: number format of the stored activations.
        shard_mb: largest size of a shard in MB. A prompt that is larger gets a shard of its own.
        pieces: folder where finished shards wait until all are there. It must be on `folder`'s file system.
            Default: beside `folder`.
        model_key: a hash of the model's weights. If given, a run that was stopped is continued by a call with the
            same model, tokens, settings, code, libraries, device and number of threads. If None, every call starts
            from the beginning.

    Returns: counts for the metrics.
        prompts, tokens_read: number of prompts, and of tokens in their inputs.
        tokens_kept: tokens whose activations are stored.
        tokens_run: tokens that went through the model.
        tokens_shared: tokens at the beginning of all inputs, which are run once.
        padding_share: share of the batches that is padding.
        points: what the mask says at each point (see `pipeline.lm.mask`): `median_norm` of the candidates,
            `norm_limit` above which a token is an outlier, `tokens_counted`, `outliers` among the candidates, and
            `outlier_energy`, their share of the candidates' sum of squared norms.

    Raises: UserError that names prompt, token and point when an activation is not finite, or that says that another
        process is writing to the same folder.
    """
    folder = Path(folder)
    with joined() as ranks, ExitStack() as held:
        rows_in_shard = min(shard_mb * 1_000_000 // (model.config.hidden_size * dtype.itemsize), _SHARD_TOKENS)
        shards = list(_shards([len(kept) for kept in tokens.kept], rows_in_shard))
        settings = {
            "model": ranks.agree(model_key or uuid.uuid4().hex),
            "points": [str(point) for point in points],
            "dtype": str(dtype),
            "compute": [str(model.dtype), model.device.type, torch.get_num_threads()],
            "batch_tokens": batch_tokens,
            "rows_in_shard": rows_in_shard,
        }
        root = pieces or folder.with_name(f".{folder.name}.unfinished")
        key = content_key(settings, tokens)
        if ranks.agree(key) != key:
            raise UserError("the processes differ in threads, device, libraries or prompts: start them all alike")
        work = Pieces(root, key)
        if ranks.rank == 0:
            held.enter_context(work.held(folder))
            if model_key is None:
                held.callback(shutil.rmtree, work.folder, ignore_errors=True)
        forward = PromptForward(model, tokens, points, batch_tokens=batch_tokens, dtype=dtype)
        ranks.barrier()
        _run_shards(forward, shards, work, ranks)
        ranks.barrier()
        masks = {point: _Mask(forward, shards, work, point) for point in forward.points}
        counts = _counts(forward, shards, work, masks)
        ranks.barrier()
        if ranks.rank == 0:
            _publish(forward, shards, work, masks, folder)
        ranks.barrier()
    return counts


def _shards(kept: Sequence[int], rows_in_shard: int) -> Iterator[range]:
    """Cut the prompts into runs of at most `rows_in_shard` kept tokens, but at least one prompt."""
    start = rows = 0
    for prompt, count in enumerate(kept):
        if rows and rows + count > rows_in_shard:
            yield range(start, prompt)
            start, rows = prompt, 0
        rows += count
    if rows:
        yield range(start, len(kept))


def _run_shards(forward: PromptForward, shards: list[range], work: Pieces, ranks: Ranks) -> None:
    """Compute those of this process's shards that are not done yet. Write each while the next is computed."""
    mine = range(ranks.rank, len(shards), ranks.count)
    todo = [number for number in mine if not work.is_done(number)]
    if len(todo) < len(mine):
        print(f"going on with an earlier run: {len(mine) - len(todo)} of {len(mine)} shards are done", file=sys.stderr)
    total = sum(forward.ends[prompt] - forward.start for number in todo for prompt in shards[number])
    prompts_total, prompts_done = sum(len(shards[number]) for number in todo), 0
    name = "extracting activations" + (f" (process 1 of {ranks.count})" if ranks.count > 1 else "")

    def write(number: int, rows: Rows) -> None:
        norms = {point: norms_of(each) for point, each in rows.of.items()}
        for point, each in norms.items():
            if not each.isfinite().all():
                raise _not_finite(rows.of[point], forward, shards[number], point)
        work.write(number, rows, norms)

    with ThreadPoolExecutor(1) as writer, progress(total, name, "token") as bar:
        writing: Future[None] | None = None

        def update(prompts: int, real: int) -> None:
            nonlocal prompts_done
            prompts_done += prompts
            bar.set_postfix_str(f"{prompts_done}/{prompts_total} prompts", refresh=False)
            bar.update(real)

        for number in todo:
            rows = forward.run(shards[number], update)
            if writing:
                writing.result()
            writing = writer.submit(write, number, rows)
            _give_back_freed_memory()
        if writing:
            writing.result()


def _give_back_freed_memory() -> None:
    """Return freed memory to the system: batches of many shapes fragment the heap, and glibc would keep the holes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


class _Mask:
    """The tokens that count at one point, among all T kept tokens.

    Attributes:
        norms: float64 (T), norm of each activation.
        norm_limit: the largest norm that is no outlier.
        counted: bool (T), whether a token counts.
    """

    def __init__(self, forward: PromptForward, shards: list[range], work: Pieces, point: Point) -> None:
        tokens = forward.tokens
        self.norms = torch.cat([work.known(number, f"norms {point}") for number in range(len(shards))])
        self._candidate = np.concatenate([tokens.candidates(prompt) for prompt in range(len(tokens.ids))])
        norms = self.norms.numpy()
        self.norm_limit = norm_limit(norms, self._candidate)
        self.counted = counted(
            self._candidate, norms, self.norm_limit, np.cumsum([0, *(len(kept) for kept in tokens.kept)])
        )

    def figures(self) -> dict[str, float]:
        norms = self.norms.numpy()[self._candidate]
        outliers = norms > self.norm_limit
        energy = np.square(norms, dtype=np.float64)
        return {
            "median_norm": float(np.median(norms)) if len(norms) else float("nan"),
            "norm_limit": self.norm_limit,
            "tokens_counted": int(self.counted.sum()),
            "outliers": int(outliers.sum()),
            "outlier_energy": float(energy[outliers].sum() / max(energy.sum(), 1e-300)),
        }


def _counts(forward: PromptForward, shards: list[range], work: Pieces, masks: Mapping[Point, _Mask]) -> dict[str, Any]:
    numbers = range(len(shards))
    run, padded = torch.stack([work.known(number, "tokens") for number in numbers]).sum(0).tolist()
    return {
        "prompts": len(forward.tokens.ids),
        "tokens_read": sum(len(ids) for ids in forward.tokens.ids),
        "tokens_kept": sum(len(kept) for kept in forward.tokens.kept),
        "tokens_run": run,
        "tokens_shared": forward.start,
        "padding_share": 1 - run / padded,
        "points": {str(point): masks[point].figures() for point in forward.points},
    }


def _publish(
    forward: PromptForward, shards: list[range], work: Pieces, masks: Mapping[Point, _Mask], folder: Path
) -> None:
    """Make the folder of each point anew and write its manifest last. Then remove the pieces."""
    tokens = forward.tokens
    write_index(folder / INDEX, (tokens.index(prompts) for prompts in shards))
    rows = [sum(len(tokens.kept[prompt]) for prompt in prompts) for prompts in shards]
    for point, mask in masks.items():
        target = folder / str(point)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for number in range(len(shards)):
            work.publish(str(point), number, target)
        write_norms(target, mask.norms)
        write_manifest(
            target,
            {
                "point": str(point),
                "norm_limit": mask.norm_limit,
                "width": forward.model.config.hidden_size,
                "dtype": str(forward.dtype).removeprefix("torch."),
                "special_ids": list(tokens.special_ids),
                "shards": [{"file": shard_name(n), "rows": count} for n, count in enumerate(rows)],
            },
        )
    work.remove()


def _not_finite(rows: Tensor, forward: PromptForward, prompts: range, point: Point) -> UserError:
    tokens = forward.tokens
    row = first = int((~rows.isfinite()).any(dim=1).nonzero()[0])
    prompt = prompts[0]
    while row >= len(tokens.kept[prompt]):
        row -= len(tokens.kept[prompt])
        prompt += 1
    kind = "NaN" if rows[first].isnan().any() else "infinite"
    if forward.model.dtype == torch.float16:
        remedy = "set extract.compute_dtype to bfloat16 or float32"
    elif kind == "infinite" and forward.dtype == torch.float16:
        remedy = "set extract.dtype to bfloat16 or float32"
    else:
        remedy = "check the model's weights"
    return UserError(
        f"activation at {point} is {kind} for prompt {tokens.prompt_ids[prompt]}, "
        f"token {tokens.kept[prompt][row]}: {remedy}"
    )
