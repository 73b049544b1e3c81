"""Run a model on prompts, batch by batch, and collect the kept activations in the prompts' order."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.points import Point
from pipeline.lm.capture import Capture
from pipeline.lm.shared_prefix import SharedPrefix, is_causal, shared_length
from pipeline.lm.tokens import PromptTokens

if TYPE_CHECKING:  # importing transformers takes seconds that readers of activations need not spend
    from transformers import PreTrainedModel

_PADDING = 0  # any token will do: it is masked, and its activations are not kept
_CACHED_PER_RUN = 8  # tokens in the KV cache that cost as much memory as one that is run
_SHORTEST_PREFIX = 2  # one shared token, such as a start-of-text, is not worth a KV cache


@dataclass
class Rows:
    """Activations of some prompts, and how many tokens were run to get them."""

    of: dict[Point, Tensor]
    """(kept tokens, width), by point."""
    tokens_run: int
    """Tokens that went through the model."""
    tokens_padded: int
    """The same, with padding."""


class PromptForward:
    """Runs a model on prompts, sorted by length within a budget of tokens, and only as far as needed.

    With a causal model, the tokens after the last kept one are not run, and a beginning that all prompts share is run
    only once. When a GPU runs out of memory, the budget is halved.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokens: PromptTokens,
        points: Sequence[Point],
        *,
        batch_tokens: int,
        dtype: torch.dtype,
    ) -> None:
        """Prepare for running. The arguments are those of `extract`.

        Raises: UserError when a point's site is not found in the model, or when a token has no embedding.
        """
        _check_ids(model, tokens)
        self.model = model
        self.tokens = tokens
        self.points = list(points)
        self.batch_tokens = batch_tokens
        self.dtype = dtype
        self._capture = Capture(model, points)
        self._to_host = ToHost(model.device)
        self.prefix: SharedPrefix | None = None
        self.ends = [len(ids) for ids in tokens.ids]
        with self._capture, torch.inference_mode():
            if is_causal(self._capture):
                self.ends = [int(kept[-1]) + 1 for kept in tokens.kept]
                shared = shared_length(tokens.ids, self.ends)
                if shared >= _SHORTEST_PREFIX:
                    sample = tokens.ids[0][: self.ends[0]]
                    self.prefix = SharedPrefix.of(self._capture, tokens.ids[0][:shared], sample)
        self.start = len(self.prefix) if self.prefix else 0

    def run(self, prompts: range, update: Callable[[int, int], object]) -> Rows:
        """Return the kept activations of `prompts`. `update` is called with (prompts, tokens) after each batch."""
        with self._capture, torch.inference_mode():
            return self._run(prompts, update)

    def _run(self, prompts: range, update: Callable[[int, int], object]) -> Rows:
        counts = np.array([len(self.tokens.kept[prompt]) for prompt in prompts])
        starts = np.cumsum(counts) - counts
        width: int = self.model.config.hidden_size
        rows = Rows({point: torch.empty(counts.sum(), width, dtype=self.dtype) for point in self.points}, 0, 0)
        waiting = sorted(range(len(prompts)), key=lambda index: (-self.ends[prompts[index]], index))
        finish: Callable[[], None] = lambda: None  # noqa: E731
        while waiting:
            longest = self.ends[prompts[waiting[0]]] - self.start
            # tokens of a shared beginning cost memory in each row too, though less than those that are run
            most = min(self.batch_tokens // longest, _CACHED_PER_RUN * self.batch_tokens // (self.start + longest))
            batch = waiting[: max(most, 1)]
            outcome = self._run_batch([prompts[index] for index in batch])
            if outcome is None:
                self._halve(longest * len(batch), prompts[batch[0]], alone=len(batch) == 1)
                continue
            found, real = outcome
            arrived = self._to_host.send(found)
            finish()  # what the previous batch found, while the device works on this one
            places = np.concatenate([starts[index] + self._kept_run(prompts[index])[1] for index in batch])
            finish = partial(_put, rows.of, torch.from_numpy(places), arrived)
            waiting = waiting[len(batch) :]
            rows.tokens_run += real
            rows.tokens_padded += longest * len(batch)
            update(len(batch), real)
        finish()
        self._put_prefix(rows, prompts, starts)
        return rows

    def _kept_run(self, prompt: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which of a prompt's kept tokens are run: their positions in what is run, and their numbers in kept."""
        kept = self.tokens.kept[prompt].astype(np.int64)
        numbers = np.flatnonzero(kept >= self.start)
        return kept[numbers] - self.start, numbers

    def _run_batch(self, prompts: Sequence[int]) -> tuple[dict[Point, Tensor], int] | None:
        """Return a batch's rows in the stored dtype, still on the device, and its number of tokens without padding.

        Returns None when the device has too little memory for it.
        """
        device = self.model.device
        parts = [torch.from_numpy(self.tokens.ids[prompt][self.start : self.ends[prompt]]) for prompt in prompts]
        ids, mask = pad(parts)
        real = int(mask.sum())
        wanted = [row * ids.shape[1] + self._kept_run(prompt)[0] for row, prompt in enumerate(prompts)]
        options: dict[str, Any] = {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}
        try:
            if self.prefix:
                mask = torch.cat([mask.new_ones(len(prompts), self.start), mask], dim=1)
                options = {"use_cache": True, "past_key_values": self.prefix.cache(len(prompts))}
            found, _ = self._capture.forward(
                torch.from_numpy(np.concatenate(wanted)).to(device),
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                **options,
            )
            return {point: rows.to(self.dtype) for point, rows in found.items()}, real
        except torch.OutOfMemoryError:
            return None  # by now the failed pass has let go of its memory

    def _put_prefix(self, rows: Rows, prompts: range, starts: np.ndarray) -> None:
        """Fill in the kept tokens of the shared beginning, which are the same for every prompt."""
        if not self.prefix:
            return
        kept = [self.tokens.kept[prompt].astype(np.int64) for prompt in prompts]
        early = [positions[positions < self.start] for positions in kept]
        places = np.concatenate([start + np.arange(len(some)) for start, some in zip(starts, early, strict=True)])
        for point, target in rows.of.items():
            source = self.prefix.rows[point].to("cpu", self.dtype)
            target[torch.from_numpy(places)] = source[torch.from_numpy(np.concatenate(early))]

    def _halve(self, padded: int, prompt: int, *, alone: bool) -> None:
        if alone:
            raise UserError(
                f"the device has too little memory for prompt {self.tokens.prompt_ids[prompt]} of "
                f"{self.ends[prompt]} tokens alone: lower extract.max_tokens, or use another device"
            )
        self.batch_tokens = padded // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"out of memory with {padded} tokens in a batch: going on with {self.batch_tokens}", file=sys.stderr)


class ToHost:
    """Copies rows from the device to the host while the device works on the next batch. A CPU needs no copy."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, found: dict[Point, Tensor]) -> Callable[[], dict[Point, Tensor]]:
        """Start the copy. Return a function that waits for it and returns the rows on the host."""
        stream = self._stream
        if stream is None:
            return lambda: {point: rows.cpu() for point, rows in found.items()}
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            host = {}
            for point, rows in found.items():
                host[point] = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
                host[point].copy_(rows, non_blocking=True)
                rows.record_stream(stream)
            done = torch.cuda.Event()
            done.record(stream)

        def arrived() -> dict[Point, Tensor]:
            done.synchronize()
            return host

        return arrived


def pad(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Right-pad sequences to int64 (batch, longest). Also return the attention mask, 1 for real tokens."""
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=_PADDING).long()
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def _put(target: dict[Point, Tensor], places: Tensor, arrived: Callable[[], dict[Point, Tensor]]) -> None:
    for point, rows in arrived().items():
        target[point][places] = rows


def _check_ids(model: "PreTrainedModel", tokens: PromptTokens) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = len(embeddings.weight)
    for prompt_id, ids in zip(tokens.prompt_ids, tokens.ids, strict=True):
        if ids.max(initial=0) >= rows:
            raise UserError(
                f"prompt {prompt_id} has a token of id {ids.max()}, and the model has embeddings of {rows} tokens: "
                "the tokenizer is not this model's, or its vocabulary was extended without the model"
            )
