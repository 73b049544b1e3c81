"""How often labels are wrong."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from pipeline.prompts.items import number_words, shingle_sets, word_sets, words_of
from pipeline.prompts.table import Prompts

COPY = 0.9  # similarity of sets of shingles, or of words, from which two prompts are taken to mean the same
SHINGLE_CHARS = 5
PAIRS = 10_000  # of a group that are compared, at most: of a larger one these are drawn at random


def label_noise(prompts: Prompts, rows: np.ndarray, confidence: float) -> dict[str, float]:
    """How often labels are wrong, from pairs of prompts that are almost the same and whose labels disagree.

    If each label is flipped with probability e, independently, and copies should have the same, a share 2 e (1 - e) of
    the pairs disagrees; `error_rate` is that e. Each group of the split counts alike, however many copies it has.
    Pairs of a template are left out: they have the same frame around payloads that may be of different clusters. Too
    low where exact duplicates that disagree were dropped before.

    Args:
        rows: bool (N), the prompts to look at.
        confidence: of `error_rate_low` to `error_rate_high`, Wilson's interval for that share. It treats groups as
            independent, and the share of a group as yes or no, which is as uncertain as shares can be.

    Returns: also how many groups have such pairs, how many pairs there are, and how many of them disagree. The rates
        are NaN without any.
    """
    left, right = _pairs(prompts, rows)
    kept = _copies(prompts.texts, left, right) if len(left) else np.zeros(0, dtype=np.int64)
    disagree = prompts.labels[left[kept]] != prompts.labels[right[kept]]
    _, group = np.unique(prompts.groups[left[kept]], return_inverse=True)
    pairs = np.bincount(group)
    shares = np.bincount(group, weights=disagree) / pairs
    rates = _wilson(float(shares.mean()), len(shares), confidence) if len(shares) else (float("nan"),) * 3
    names = ("error_rate", "error_rate_low", "error_rate_high")
    return {
        "groups": len(shares),
        "pairs": int(pairs.sum()),
        "disagreeing": int(disagree.sum()),
        **{name: _flipped(share) for name, share in zip(names, rates, strict=True)},
    }


def _copies(texts: list[str], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which pairs of rows are almost the same, by shingles or, where words were moved, by words."""
    members = np.unique(np.concatenate([left, right]))
    some = [texts[row] for row in members]
    places = np.searchsorted(members, left), np.searchsorted(members, right)
    both = shingle_sets(some, SHINGLE_CHARS), word_sets(*number_words([words_of(text) for text in some]))
    return np.unique(np.concatenate([sets.similar(*places, COPY)[0] for sets in both]))


def _pairs(prompts: Prompts, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of the same group and not of the same template: two int arrays."""
    found = [np.zeros((2, 0), dtype=np.int64), *_pairs_by_group(prompts.groups, np.flatnonzero(rows))]
    left, right = np.concatenate(found, axis=1)
    same = (prompts.templates[left] == prompts.templates[right]) & (prompts.templates[left] != "")
    return left[~same], right[~same]


def _pairs_by_group(groups: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    starts = np.flatnonzero(groups[rows][1:] != groups[rows][:-1]) + 1
    for members in np.split(rows, starts):
        if len(members) > 1:
            pairs = np.stack(np.triu_indices(len(members), 1))
            if pairs.shape[1] > PAIRS:
                pairs = pairs[:, rng.choice(pairs.shape[1], PAIRS, replace=False)]
            yield members[pairs]


def _wilson(share: float, count: int, confidence: float) -> tuple[float, float, float]:
    """The share, and Wilson's interval (1927) for it."""
    z = float(norm.ppf((1 + confidence) / 2))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return share, max(centre - half, 0.0), min(centre + half, 1.0)


def _flipped(share: float) -> float:
    """With which probability labels are flipped where this share of the pairs disagrees; at most a half."""
    return float((1 - max(1 - 2 * share, 0.0) ** 0.5) / 2) if share == share else share
