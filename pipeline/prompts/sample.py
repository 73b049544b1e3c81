"""An invented red-team prompt set, so that the whole pipeline runs with no network.

It has the columns and the faults of the real collection: unbalanced clusters, rows ordered by cluster, exact and
near-duplicates, duplicates with conflicting clusters, labels that are sometimes wrong, scraps of a few characters,
and hostile markup. Prompts are put together from the patterns of `sample_words.py`. What makes a prompt "Toxicity &
Hate Speech" is the combination of who is meant and with what attitude. Peoples, insults and contempt also occur in the
other clusters, so that no single word, source or length gives the cluster away.
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import pyarrow as pa

from pipeline.prompts.sample_words import FRAMES, MARKS, NOISE, SLOTS, STYLES, THEMES, Style

T = TypeVar("T")

CLUSTER_WEIGHTS = (422, 1178, 849, 9446, 12770, 1388)  # prompts of clusters 0 to 5 in the real collection
SMALLEST_CLUSTER = 0.02  # the rarest are raised to this share, or 3,000 rows would have too few to split
TARGET, RIVAL = 3, 4  # the two that automatic clustering mixes up most

# Shares of all rows, or of the rows of a cluster.
DUPLICATES = 0.075  # exact copies
NEAR_DUPLICATES = 0.06  # copies with one word or phrase changed
CONFLICTS = 0.004  # copies under the other of TARGET and RIVAL
WRONG_LABELS = 0.05  # TARGET content under RIVAL's label, and the reverse
SCRAPS = 0.0015  # texts too short to mean anything
ODD_MARKS = 0.02  # markup, quotes or control characters around the prompt

_TEMPLATED = next(iter(STYLES))
_SLOT = re.compile(r"\{(\w+)\}")
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeioAEIO]|u[ng]|Um)")


class Piece(NamedTuple):
    """A stretch of a prompt, and the slot it fills (empty for the pattern's own words)."""

    slot: str
    text: str


class Row(NamedTuple):
    """One prompt, with the pieces it was made of so that near-duplicates can be made from it."""

    prompt: str
    source: str
    pieces: tuple[Piece, ...]


def sample_prompts(rows: int, seed: int) -> pa.Table:
    """Make `rows` prompts: columns `prompt` and `source` (strings) and `cluster` (int64), ordered by cluster.

    The same arguments give the same table on every platform. Another seed gives almost completely different prompts.
    """
    rng = random.Random(seed)
    sizes = _cluster_sizes(rows)
    seen: set[str] = set(NOISE)
    table = [_cluster(rng, cluster, size, seen) for cluster, size in enumerate(sizes)]
    _plant_conflicts(rng, table, round(CONFLICTS * rows))
    _plant_scraps(rng, table, max(min(5, rows // 100), round(SCRAPS * rows)))
    flat = [(row, cluster) for cluster, part in enumerate(table) for row in part]
    return pa.table(
        {
            "prompt": pa.array([row.prompt for row, _ in flat], pa.string()),
            "source": pa.array([row.source for row, _ in flat], pa.string()),
            "cluster": pa.array([cluster for _, cluster in flat], pa.int64()),
        }
    )


def _cluster_sizes(rows: int) -> list[int]:
    """Divide `rows` among the clusters. The largest one takes what rounding leaves."""
    total = sum(CLUSTER_WEIGHTS)
    sizes = [round(rows * max(weight / total, SMALLEST_CLUSTER)) for weight in CLUSTER_WEIGHTS]
    sizes[RIVAL] += rows - sum(sizes)
    return sizes


def _cluster(rng: random.Random, cluster: int, size: int, seen: set[str]) -> list[Row]:
    """Make the prompts of one cluster in random order. `seen` prevents accidental copies."""
    made: list[Row] = []
    templated: list[Row] = []
    copies: list[Row] = []
    while len(made) + len(copies) < size:
        kind = rng.random()
        if templated and kind < DUPLICATES:
            copies.append(_pick(rng, templated))
            continue
        if templated and kind < DUPLICATES + NEAR_DUPLICATES:
            row = _near_duplicate(rng, _pick(rng, templated))
        else:
            row = _fresh(rng, _content_of(rng, cluster))
        if row.prompt in seen:
            continue
        seen.add(row.prompt)
        made.append(row)
        if row.source == _TEMPLATED:
            templated.append(row)
    made += copies
    _shuffle(rng, made)
    return made


def _content_of(rng: random.Random, cluster: int) -> int:
    """Return the cluster from which a prompt's content is drawn: sometimes not the one on its label."""
    if cluster in (TARGET, RIVAL) and rng.random() < WRONG_LABELS:
        return TARGET + RIVAL - cluster
    return cluster


def _fresh(rng: random.Random, cluster: int) -> Row:
    """Make a new prompt: a core request of the cluster, worded the way a source words things."""
    form, core = _core(rng, cluster)
    source = _pick_weighted(rng, list(STYLES), [style.share for style in STYLES.values()])
    style = STYLES[source]
    wrapper = _pick_weighted(rng, list(style.wrappers), list(style.wrappers.values()))
    wrapper = wrapper.replace("{scenes}", "{scene} {more}. " * (4 + int(18 * rng.random() ** 3)))
    pieces: list[Piece] = []
    for piece in _expand(rng, wrapper.replace("{ask}", _pick(rng, style.asks[form]))):
        if piece.slot == "core":
            pieces += core
        elif piece.slot == "more":
            pieces += _core(rng, cluster)[1]
        else:
            pieces.append(piece)
    return Row(_roughen(rng, _text(pieces), style), source, tuple(pieces))


def _core(rng: random.Random, cluster: int) -> tuple[str, tuple[Piece, ...]]:
    """Return what a prompt of the cluster wants, and its grammatical form."""
    themes = [theme for theme in THEMES if theme.cluster == cluster]
    theme = _pick_weighted(rng, themes, [theme.share for theme in themes])
    form, pattern = theme.form, _pick(rng, theme.patterns)
    if form in FRAMES:
        marker = form.upper()
        form, frame = _pick(rng, FRAMES[form])
        pattern = frame.replace(marker, pattern)
    return form, _expand(rng, pattern)


def _near_duplicate(rng: random.Random, row: Row) -> Row:
    """Return the same prompt with one filled-in word or phrase exchanged for another of its slot."""
    spots = [i for i, piece in enumerate(row.pieces) if piece.slot and piece.text]
    if not spots:
        return row
    spot = _pick(rng, spots)
    slot = row.pieces[spot].slot
    words = [word for word in SLOTS[slot] if word and "{" not in word]
    pieces = (*row.pieces[:spot], Piece(slot, _pick(rng, words)), *row.pieces[spot + 1 :])
    return Row(_text(pieces), row.source, pieces)


def _expand(rng: random.Random, pattern: str) -> tuple[Piece, ...]:
    """Fill the slots of a pattern, each word at most once; `{core}` and `{more}` are left to the caller."""
    pieces: list[Piece] = []
    for i, part in enumerate(_parts(pattern)):
        if i % 2 == 0:  # the pattern's own words alternate with slot names
            pieces.append(Piece("", part))
        elif part in SLOTS:
            pieces.extend(_fill(rng, part, pieces))
        else:
            pieces.append(Piece(part, ""))
    return tuple(pieces)


def _fill(rng: random.Random, slot: str, before: list[Piece]) -> tuple[Piece, ...]:
    """Return one entry of a slot, if possible one that is not in `before` already."""
    for _ in range(5):
        entry = _pick(rng, SLOTS[slot])
        filling = _expand(rng, entry) if "{" in entry else (Piece(slot, entry),)
        if not any(piece.slot and piece.text and piece in before for piece in filling):
            break
    return filling


def _text(pieces: Sequence[Piece]) -> str:
    """Join pieces into a sentence: no gap where a slot stayed empty, `an` before vowels, a capital first."""
    text = "".join(piece.text for piece in pieces)
    text = re.sub(r" +(?=[ ?.,!]|$)", "", text.strip())
    text = re.sub(r"([?!.])\.(?!\.)", r"\1", text)
    text = re.sub(r"(?<=[.?!] )[a-z]", lambda letter: letter[0].upper(), text)
    text = _BEFORE_VOWEL.sub(r"\1n ", text)
    return text[:1].upper() + text[1:]


def _roughen(rng: random.Random, text: str, style: Style) -> str:
    """Add the slips, odd marks and markup that people and collectors leave in prompts."""
    if rng.random() < style.lowercase:
        text = text.lower()
    if rng.random() < style.typo:
        text = _slip(rng, text)
    if rng.random() < ODD_MARKS:
        text = _pick(rng, MARKS).replace("TEXT", text)
    if rng.random() < style.newline:
        text += "\n"
    return text


def _slip(rng: random.Random, text: str) -> str:
    """Swap two neighbouring letters, or leave one out."""
    at = int(rng.random() * (len(text) - 2))
    if rng.random() < 0.5:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _plant_conflicts(rng: random.Random, table: list[list[Row]], count: int) -> None:
    """Overwrite some prompts of TARGET or RIVAL with copies of prompts that the other one keeps."""
    for _ in range(count):
        here, there = _pick(rng, ((TARGET, RIVAL), (RIVAL, TARGET)))
        copied = _pick(rng, [row for row in table[here] if row.source == _TEMPLATED])
        table[there][int(rng.random() * len(table[there]))] = copied


def _plant_scraps(rng: random.Random, table: list[list[Row]], count: int) -> None:
    """Overwrite some prompts with scraps of text that mean nothing."""
    for _ in range(count):
        part = table[_pick(rng, (TARGET, RIVAL))]
        part[int(rng.random() * len(part))] = Row(_pick(rng, NOISE), _TEMPLATED, ())


@cache
def _parts(pattern: str) -> tuple[str, ...]:
    return tuple(_SLOT.split(pattern))


# Choices use nothing of `random` but `random()`: only its sequence is promised to outlast Python versions.


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _pick_weighted(rng: random.Random, options: Sequence[T], weights: Sequence[float]) -> T:
    point = rng.random() * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        point -= weight
        if point < 0:
            return option
    return options[-1]


def _shuffle(rng: random.Random, items: list[T]) -> None:
    for i in range(len(items) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        items[i], items[j] = items[j], items[i]
