"""Take prompts apart: into character shingles, and into words weighted by how rare they are."""

import unicodedata

import numpy as np

from pipeline.prompts.item_sets import ItemSets

APOSTROPHES = "'\u2019\u02bc"  # don't is one word, and the same as dont


class _WordCharacters(dict[int, str]):
    """For str.translate: letters, marks and digits stay, invisible signs and apostrophes go, others are spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        kept = "" if character in APOSTROPHES or category == "Cf" else " "
        self[code] = character if category[0] in "LMN" and character not in APOSTROPHES else kept
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def words_of(prompt: str) -> list[str]:
    """Return a prompt's words in order. Case, punctuation and compatibility forms (full width) make no difference.

    A prompt of punctuation alone is one word. Scripts that put no space between words make one word of each stretch.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    return text.translate(_WORD_CHARACTERS).split() or [prompt.strip()]


def number_words(words: list[list[str]]) -> tuple[list[np.ndarray], int]:
    """Return each prompt's words as int32 numbers in alphabetical order, and how many different words there are."""
    number_of = {word: number for number, word in enumerate(sorted({word for each in words for word in each}))}
    return [np.array([number_of[word] for word in each], dtype=np.int32) for each in words], len(number_of)


def word_sets(words: list[np.ndarray], vocabulary: int) -> ItemSets:
    """Return sets of words. A word weighs log(1 + prompts / prompts that have it), in hundredths.

    Args:
        words, vocabulary: see `number_words`.
    """
    sets = [np.unique(each) for each in words]
    frequency = np.bincount(np.concatenate(sets), minlength=vocabulary)
    return ItemSets(sets, np.rint(100 * np.log1p(len(words) / frequency)).astype(np.int64))


def shingle_sets(prompts: list[str], size: int) -> ItemSets:
    """Return sets of all stretches of `size` characters. Case and runs of white space are ignored."""
    number_of: dict[str, int] = {}
    sets = []
    for prompt in prompts:
        text = " ".join(prompt.lower().split())
        shingles = dict.fromkeys(text[start : start + size] for start in range(max(len(text) - size + 1, 1)))
        numbers = [number_of.setdefault(shingle, len(number_of)) for shingle in shingles]
        sets.append(np.sort(np.array(numbers, dtype=np.int32)))
    return ItemSets(sets, np.ones(len(number_of), dtype=np.int64))
