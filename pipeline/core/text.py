"""Make texts of others safe to read: name characters that cannot be seen, and fit names into a line."""

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
    """Replace characters that cannot be seen, or that reverse others, by their name, such as <U+202E>.

    By Unicode's categories these are all controls, formats, surrogates, characters of private use, unassigned
    characters, and separators except the usual spaces; and characters of other categories that are blank. Characters
    that a script or an emoji needs stay: a Windows line end, one variation selector after a symbol, a joiner between
    two symbols, and a joiner or non-joiner between letters that join. Tag characters are always named, also in flags
    that are made of them.
    """
    return _MAYBE_UNSEEN.sub(_named, text)


def label(text: str, longest: int = 80) -> str:
    """Return any text as a name: one visible line, cut to `longest` characters."""
    line = " ".join(visible(text[: 2 * longest]).split())
    return line if len(line) <= longest and len(text) <= 2 * longest else line[: longest - 1] + "…"


def labels(texts: Iterable[str], longest: int = 80) -> list[str]:
    """Return the `label` of each text. One that would look like an earlier label gets a number, so that all differ."""
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
    """Return whether an unseen character belongs to how the characters before it (two) and after it are written."""
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
    """Return whether it is a symbol, as emoji are. Some emoji are punctuation by their category."""
    return character != "" and (
        (character > "~" and unicodedata.category(character) in ("So", "Sm", "Sk") and not _BLANK.match(character))
        or character in _MORE_SIGNS
    )
