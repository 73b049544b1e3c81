"""Turn prompts into token ids, and decide which tokens are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pyarrow as pa

from pipeline.core.errors import UserError
from pipeline.core.progress import progress
from pipeline.lm.chat import chat_frame
from pipeline.lm.faults import explained
from pipeline.lm.mask import candidates

if TYPE_CHECKING:  # importing transformers takes seconds that readers of activations need not spend
    from transformers import PreTrainedTokenizerBase

PromptFormat = Literal["raw", "chat", "chat_thinking"]
Keep = Literal["prompt", "all"]


@dataclass(frozen=True)
class PromptTokens:
    """The model's input for N prompts, and which tokens' activations are kept."""

    prompt_ids: Sequence[str]
    """Ids of the prompts."""
    ids: Sequence[np.ndarray]
    """N int32 arrays: what the model reads."""
    kept: Sequence[np.ndarray]
    """N arrays: the positions in `ids` that are kept, ascending."""
    special_ids: Sequence[int]
    """The tokenizer's special tokens, which do not count (see `pipeline.lm.mask`)."""

    def some(self, prompts: Sequence[int]) -> "PromptTokens":
        """Return these prompts alone, in this order."""
        ids, kept = ([each[prompt] for prompt in prompts] for each in (self.ids, self.kept))
        return PromptTokens([self.prompt_ids[prompt] for prompt in prompts], ids, kept, self.special_ids)

    def index(self, prompts: range) -> pa.Table:
        """Return one row per kept token of `prompts`, in order: prompt_id, position (in the input), token_id."""
        counts = [len(self.kept[prompt]) for prompt in prompts]
        names = np.array([self.prompt_ids[prompt] for prompt in prompts], dtype=object)
        positions = np.concatenate([self.kept[prompt] for prompt in prompts])
        token_ids = np.concatenate([self.ids[prompt][self.kept[prompt]] for prompt in prompts])
        return pa.table(
            {
                "prompt_id": pa.array(np.repeat(names, counts), pa.string()),
                "position": pa.array(positions, pa.int32()),
                "token_id": pa.array(token_ids, pa.int32()),
            }
        )

    def candidates(self, prompt: int) -> np.ndarray:
        """Return which of a prompt's kept tokens are candidates of the mask, bool (kept)."""
        kept = self.kept[prompt]
        return candidates(kept, self.ids[prompt][kept], list(self.special_ids))


def input_limit(tokenizer: "PreTrainedTokenizerBase", *limits: int | None) -> int:
    """Return how many tokens an input may have: the smallest of the limits that are set, and of the tokenizer's own."""
    return int(min(limit for limit in (*limits, tokenizer.model_max_length) if limit and limit > 0))


def tokenise(
    tokenizer: "PreTrainedTokenizerBase",
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    *,
    max_tokens: int,
    prompt_format: PromptFormat = "raw",
    keep: Keep = "prompt",
) -> PromptTokens:
    """Tokenise prompts, in order.

    Args:
        prompt_ids: one id per prompt, all different. They identify the prompts from here on.
        prompts: their texts.
        max_tokens: longer inputs are cut at their end.
        prompt_format: `raw` is the prompt alone. `chat` and `chat_thinking` put it as a user's turn into the
            tokenizer's chat template, with thinking off or on, up to where the answer would start.
        keep: `prompt` keeps the tokens of the prompt itself, `all` also those of the template.

    Raises: UserError when ids and prompts do not belong together or are not text, when an option is not one of these,
        when the tokenizer has no chat template, or when a prompt is left without tokens.
    """
    _check_prompts(prompt_ids, prompts)
    if type(max_tokens) is not int or max_tokens < 1:
        raise UserError(f"max_tokens = {max_tokens!r} is not allowed: a whole number from 1 is")
    for name, value, kind in (("prompt_format", prompt_format, PromptFormat), ("keep", keep, Keep)):
        if value not in get_args(kind):
            raise UserError(f"{name} = {value!r} is not allowed: one of {', '.join(get_args(kind))} is")
    if prompt_format != "raw" and not (tokenizer.chat_template and tokenizer.is_fast):
        what = "no chat template" if tokenizer.is_fast else "no fast version, which tells where tokens stand"
        raise UserError(f"the model's tokenizer has {what}: set extract.prompt_format to raw")
    frame = None if prompt_format == "raw" else chat_frame(tokenizer, thinking=prompt_format == "chat_thinking")
    ids: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    with progress(len(prompts), "tokenising", "prompt") as bar:
        for prompt_id, prompt in zip(prompt_ids, prompts, strict=True):
            with explained(f"prompt {prompt_id} cannot be tokenised", "check the model's tokenizer"):
                tokens, mask = _encode(tokenizer, prompt, frame, keep)
            tokens, mask = tokens[:max_tokens], mask[:max_tokens]
            if not mask.any():
                raise UserError(
                    f"prompt {prompt_id} has no token to keep within extract.max_tokens = {max_tokens}: "
                    "raise it, or remove the prompt"
                )
            ids.append(tokens)
            kept.append(np.flatnonzero(mask).astype(np.int32))
            bar.update()
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = {number for number in tokenizer.all_special_ids if number is not None}  # such as that of an empty text
    return PromptTokens(prompt_ids, ids, kept, sorted(added | named))


def _check_prompts(prompt_ids: Sequence[str], prompts: Sequence[str]) -> None:
    """Raise UserError unless there are as many ids as prompts, all are text, and no id stands for two prompts."""
    if isinstance(prompts, str) or isinstance(prompt_ids, str):
        raise UserError("prompts and their ids are lists of text: put a single one into a list")
    if len(prompt_ids) != len(prompts):
        raise UserError(f"there are {len(prompt_ids)} prompt ids for {len(prompts)} prompts: give one for each")
    seen: set[str] = set()
    for number, (prompt_id, prompt) in enumerate(zip(prompt_ids, prompts, strict=True)):
        for what, text in (("id", prompt_id), ("text", prompt)):
            if not isinstance(text, str) or _is_broken(text):
                raise UserError(f"the {what} of prompt {number} is {text!r:.60}: text of valid characters is expected")
        if prompt_id in seen:
            raise UserError(f"prompt id {prompt_id!r:.60} stands for two prompts: give each its own")
        seen.add(prompt_id)


def _is_broken(text: str) -> bool:
    """Return whether the text has halves of surrogate pairs, which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _encode(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, frame: tuple[str, str] | None, keep: Keep
) -> tuple[np.ndarray, np.ndarray]:
    """Return one prompt's token ids, int32, and which are kept, bool. `frame`: what a chat puts around the prompt."""
    if frame is None:
        tokens = np.array(tokenizer(prompt)["input_ids"], dtype=np.int32)
        return tokens, np.ones(len(tokens), dtype=bool)
    before, after = frame
    text = before + prompt + after
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = np.array(encoded["input_ids"], dtype=np.int32)
    if keep == "all":
        return tokens, np.ones(len(tokens), dtype=bool)
    spans = np.array(encoded["offset_mapping"]).reshape(-1, 2)
    return tokens, (spans[:, 1] > len(before)) & (spans[:, 0] < len(before) + len(prompt))
