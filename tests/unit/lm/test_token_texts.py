"""The text that each token of a prompt stands for, with tokenizers of several kinds."""

from typing import Any

import numpy as np
import pytest
from helpers import (
    HOSTILE,
    make_tokenizer,
    sample_rows,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from pipeline.lm.tiny import train_tokenizer
from pipeline.lm.token_texts import pieces, token_texts
from pipeline.lm.tokens import tokenise


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = make_tokenizer()
    return tokenizer


def byte_level_with_nfc() -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, spaces left out, special tokens around."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in special[1:]]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama's: a mark for spaces, one put before the text, single bytes for what is not known."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, limit_alphabet=40, show_progress=False)
    tokenizer.train_from_iterator([row["prompt"] for row in sample_rows(100)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


TEXTS = [*HOSTILE, *(row["prompt"] for row in sample_rows(12)), " ", "\U0001f9a9" * 5]
TOKENIZERS = [byte_level, byte_level_with_nfc, word_piece, sentence_piece]


def spelt(tokenizer: Any, prompt: str, **options: Any) -> list[str]:
    """The pieces of a prompt's kept tokens, as extraction keeps them."""
    tokens = tokenise(tokenizer, ["p"], [prompt], **{"max_tokens": 10_000} | options)
    kept = tokens.kept[0]
    options.pop("max_tokens", None)
    found = pieces(tokenizer, prompt, kept, tokens.ids[0][kept], **options)
    assert found is not None and len(found) == len(kept)
    return found


@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_tokens_of_a_prompt_join_to_its_text(make: Any) -> None:
    tokenizer = make()
    for text in TEXTS:
        found = spelt(tokenizer, text)
        assert "".join(found) == text
        for cut in range(1, len(found), 5):
            shorter = spelt(tokenizer, text, max_tokens=cut)
            # but where only spaces are left, which no token stands for
            assert shorter[:-1] == found[: cut - 1] and shorter[-1].rstrip() == found[cut - 1].rstrip()


@pytest.mark.parametrize("make", TOKENIZERS)
def test_each_piece_is_the_text_of_its_token(make: Any) -> None:
    tokenizer = make()
    special = {tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    for row in sample_rows(30):
        ids = tokenizer(row["prompt"])["input_ids"]
        found = spelt(tokenizer, row["prompt"])
        for token, piece, text in zip(ids, found, token_texts(tokenizer, ids), strict=True):
            if token in special:
                assert piece.strip() == ""
            elif token != tokenizer.unk_token_id:
                assert piece.strip().lower() == text.strip().lower()


def test_a_character_of_several_tokens_stands_once() -> None:
    assert spelt(byte_level(), "a \U0001f9a9b") == ["a", " ", "", "", "", "\U0001f9a9", "b"]


@pytest.mark.parametrize("prompt_format", ["chat", "chat_thinking"])
def test_within_a_chat_the_prompt_alone_is_spelt_or_all_of_it(prompt_format: str) -> None:
    tokenizer = train_tokenizer(["a\n\n\nb\n\n"] * 9 + TEXTS, 300)
    tokenizer.chat_template = "[user]\n{{ messages[0].content }}\n\n[answer]"
    for text in [*TEXTS, "\n\nfirst and last in one token with some of the template\n"]:
        assert "".join(spelt(tokenizer, text, prompt_format=prompt_format)) == text
        everything = spelt(tokenizer, text, prompt_format=prompt_format, keep="all")
        assert "".join(everything) == f"[user]\n{text}\n\n[answer]"


def test_a_tokenizer_without_offsets_gives_the_tokens_own_text() -> None:
    assert spelt(ByT5Tokenizer(), "abc") == ["a", "b", "c", "</s>"]


def test_other_tokens_than_those_of_the_activations_are_noticed() -> None:
    tokenizer = byte_level()
    ids = np.array(tokenizer("some prompt")["input_ids"])
    assert pieces(tokenizer, "some prompt", np.arange(len(ids)), ids) is not None
    assert pieces(tokenizer, "some prompt", np.arange(len(ids)), ids[::-1]) is None
    assert pieces(tokenizer, "some", np.arange(len(ids)), ids) is None


@pytest.mark.parametrize("make", TOKENIZERS)
def test_tokens_are_named_with_the_space_before_them(make: Any) -> None:
    tokenizer = make()
    ids = tokenizer("who and who", add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)).strip() == "who and who"
