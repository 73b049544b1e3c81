"""Texts of others for people to read: what cannot be seen is named, and a name fits a line."""

import re
import unicodedata
from collections.abc import Iterable

# spaces that keyboards and languages write: of English, French and Chinese or Japanese; all others are named
_SPACES = " \n\t\u00a0\u202f\u3000"
# blank, though of a category that has a shape: default ignorables (the fillers of Hangul and Khmer, the joiner of
# graphemes, Mongolian and all other variation selectors), and signs that are drawn as nothing
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffc"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
# Between letters of these scripts, Arabic to Sinhala, a joiner or non-joiner decides on their form (Persian, Hindi)
_SHAPED = re.compile("[\u0600-\u0dff]")
_JOINER, _NON_JOINER = "\u200d", "\u200c"
_STYLES = "\ufe0e\ufe0f"  # as text, as emoji
_MORE_SIGNS = "\u203c\u2049\u2139\u3030"  # emoji that are no symbols by their category
_KEYS = tuple("0123456789#*")
_MAYBE_UNSEEN = re.compile("[^\n\t -~]")


def visible(text: str) -> str:
    """Name the characters of a text that cannot be seen, or that turn others around: <U+202E>.

    These are, by Unicode's categories, all controls, formats, surrogates, characters of private use, unassigned ones,
    and separators but for the usual spaces; and what is blank in other categories. What a script or an emoji is
    written with stays: a line end of Windows, one selector after a sign, a joiner between two signs, and a joiner or
    non-joiner between letters that join. Tag characters are always named, also of the flags that are made of them.
    """
    return _MAYBE_UNSEEN.sub(_named, text)


def label(text: str, longest: int = 80) -> str:
    """A text that may be anything, as a name of one visible line; cut to `longest` characters."""
    line = " ".join(visible(text[: 2 * longest]).split())
    return line if len(line) <= longest and len(text) <= 2 * longest else line[: longest - 1] + "…"


def labels(texts: Iterable[str], longest: int = 80) -> list[str]:
    """`label` of each text; one that would read like an earlier one gets a number, so that no two are taken for one."""
    names: dict[str, int] = {}  # and the last number that was given to it
    for text in texts:
        name = first = label(text, longest)
        while name in names:
            names[first] += 1
            name = f"{first} ({names[first]})"
        names[name] = 1
    return list(names)


def _named(match: re.Match[str]) -> str:
    text, place, character = match.string, match.start(), match[0]
    # not printable, to Python: of a category C* or Z*
    seen = character.isprintable() and not _BLANK.match(character)
    if (
        seen
        or character in _SPACES
        or _belongs(character, text[max(place - 2, 0) : place], text[place + 1 : place + 2])
    ):
        return character
    return f"<U+{ord(character):04X}>"


def _belongs(character: str, before: str, after: str) -> bool:
    """Whether an unseen character is part of how the two characters before it and the one after it are written."""
    last = before[-1:]
    if character == "\r":
        return after == "\n"
    if character in _STYLES:
        return _is_sign(last) or (last in _KEYS and after == "\u20e3")  # a keycap
    if character == _JOINER and _is_sign(after):
        return _is_sign(last) or (last in _STYLES and _is_sign(before[:1]))
    if character in (_JOINER, _NON_JOINER):
        return bool(_SHAPED.match(last) and _SHAPED.match(after)) and (last + after).isprintable()
    return False


def _is_sign(character: str) -> bool:
    """Whether it is a symbol, as emoji are; a few of these are punctuation."""
    return character != "" and (
        (character > "~" and unicodedata.category(character) in ("So", "Sm", "Sk") and not _BLANK.match(character))
        or character in _MORE_SIGNS
    )
