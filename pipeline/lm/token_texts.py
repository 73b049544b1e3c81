"""Find the text that each kept token of a prompt stands for."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.lm.chat import chat_frame
from pipeline.lm.tokens import Keep, PromptFormat

if TYPE_CHECKING:  # importing transformers takes seconds
    from transformers import PreTrainedTokenizerBase


def pieces(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    positions: np.ndarray,
    token_ids: np.ndarray,
    *,
    prompt_format: PromptFormat = "raw",
    keep: Keep = "prompt",
) -> list[str] | None:
    """Return one piece of text per kept token. Joined, they are the prompt.

    With keep="all" they are the prompt with the chat template around it. The text is cut where the tokenizer says that
    tokens end. So text between two tokens belongs to the second, a character made of several tokens belongs to the last
    of these and the others are empty, and text that the tokenizer normalised is shown as it was before. Where the
    tokens were cut at extract.max_tokens, so is the text. A "slow" tokenizer does not say where its tokens stand; then
    the tokens' own text is returned, which need not spell the prompt.

    Args:
        positions, token_ids: of the kept tokens in what the model reads, as in the index of activations.

    Returns: None when the tokenizer makes other tokens of the prompt.
    """
    if not tokenizer.is_fast:
        return [str(tokenizer.decode([token])) for token in token_ids]
    thinking = prompt_format == "chat_thinking"
    before, after = ("", "") if prompt_format == "raw" else chat_frame(tokenizer, thinking=thinking)
    text = before + prompt + after
    encoded = tokenizer(text, add_special_tokens=prompt_format == "raw", return_offsets_mapping=True)
    ids, spans = np.array(encoded["input_ids"]), np.array(encoded["offset_mapping"])
    if positions[-1] >= len(ids) or (ids[positions] != token_ids).any():
        return None
    first, last = (0, len(text)) if keep == "all" else (len(before), len(before) + len(prompt))
    # of tokens that share a character the next one may begin before this one ends; special tokens stand nowhere
    begins = np.append(np.where(spans[:, 0] < spans[:, 1], spans[:, 0], len(text)), len(text))[1:]
    ends = np.maximum.accumulate(np.minimum(spans[:, 1], begins))[positions]
    if begins[positions[-1]] >= last:  # none of the prompt's tokens was cut off
        ends[-1] = last
    starts = np.append(first, ends[:-1])
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def token_texts(tokenizer: "PreTrainedTokenizerBase", token_ids: list[int]) -> list[str]:
    """Return what each token adds to a text when it follows itself: tokenizers drop the space before a first token."""
    once = tokenizer.batch_decode([[token] for token in token_ids], clean_up_tokenization_spaces=False)
    twice = tokenizer.batch_decode([[token, token] for token in token_ids], clean_up_tokenization_spaces=False)
    return [both[len(one) :] for one, both in zip(once, twice, strict=True)]
