"""Represent prompts as sets of items, such as shingles or words, and compare their Jaccard similarity."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

PERMUTATIONS = 128
BITS = 1024  # of a prompt's bitmap, a multiple of 64
ITEMS_AT_ONCE = 20_000_000  # bounds the memory of a comparison of pairs, whatever the length of the prompts
CELLS_AT_ONCE = 2_000_000  # bounds the memory of a comparison of some prompts with many others


class ItemSets:
    """Each prompt's set of items. Two prompts are as similar as the weight of their common items, by that of all."""

    signatures: np.ndarray
    """uint32 (prompts, PERMUTATIONS), weighted MinHash with a fixed seed.

    Items come at random, at rates that are their weights, and the first one of a set signs for it. So two signatures
    are equal at a place with a probability that is the similarity of the sets (Broder 1997, for equal weights).
    """
    totals: np.ndarray
    """int64 (prompts), weight of all items of a prompt."""

    def __init__(self, members: list[np.ndarray], weights: np.ndarray) -> None:
        """Make the sets.

        Args:
            members: the distinct items of each prompt, at least one, sorted, as int32 that index `weights`.
            weights: integers of at least one, so that sums are exact.
        """
        ends = np.cumsum([0, *(len(items) for items in members)])
        items = np.concatenate(members)
        shape = (len(members), len(weights))
        self._ones = csr_array((np.ones(len(items), dtype=np.int8), items, ends), shape=shape)
        self._weighted = csr_array((weights[items].astype(np.int32), items, ends), shape=shape)
        self._lightest = int(weights.min())
        self.totals = np.add.reduceat(weights[items].astype(np.int64), ends[:-1])
        self.signatures = np.empty((len(members), PERMUTATIONS), dtype=np.uint32)
        rng = np.random.default_rng(1)
        for place in range(PERMUTATIONS):
            arrival = (rng.standard_exponential(len(weights)) / weights).astype(np.float32)
            self.signatures[:, place] = np.minimum.reduceat(arrival[items], ends[:-1]).view(np.uint32)
        self._bitmaps = np.array([_bitmap(items) for items in members])

    def __len__(self) -> int:
        return len(self.totals)

    def some(self, rows: np.ndarray) -> "ItemSets":
        """Return the sets of these rows, int (n), in this order."""
        sets = object.__new__(ItemSets)
        sets._lightest = self._lightest
        for name in ("_ones", "_weighted", "totals", "signatures", "_bitmaps"):
            setattr(sets, name, getattr(self, name)[rows])
        return sets

    def similar(self, left: np.ndarray, right: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Return which pairs, of indices `left` and `right`, are similar by at least `threshold`, and how similar.

        Two sets differ in at least as many items as their bitmaps do in bits, where every item flips one bit
        ("Bitmap-Xor" of Sandes, Teodoro & Melo 2020, "Bitmap filter", arXiv:1711.07295). That rules out most pairs; the
        sets of the others are compared themselves.
        """
        total = self.totals[left] + self.totals[right]
        differing = np.bitwise_count(self._bitmaps[left] ^ self._bitmaps[right]).sum(axis=1, dtype=np.int64)
        possible = np.flatnonzero(_jaccard((total - self._lightest * differing) / 2, total) >= threshold)
        items = np.diff(self._ones.indptr)
        work = int((items[left[possible]] + items[right[possible]]).sum())
        found, similarities = [], []
        for part in np.array_split(possible, 1 + work // ITEMS_AT_ONCE):
            common = self._weighted[left[part]].multiply(self._ones[right[part]]).sum(axis=1)
            similarity = _jaccard(common, total[part])
            found.append(part[similarity >= threshold])
            similarities.append(similarity[similarity >= threshold])
        return np.concatenate(found), np.concatenate(similarities)

    def similarities(self, rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
        """Yield how similar each of `rows` is to each of `others`: float64 (rows, others), in parts and in order."""
        columns = self._ones[others].T.tocsr().astype(np.float64)
        for part in np.array_split(rows, 1 + len(rows) * len(others) // CELLS_AT_ONCE):
            common = (self._weighted[part] @ columns).toarray()
            either = np.add.outer(self.totals[part].astype(np.float64), self.totals[others])
            np.subtract(either, common, out=either)
            yield np.divide(common, either, out=common)


def _jaccard(common: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the similarity of pairs with `common` weight in both sets and `total` in one plus the other."""
    return common / (total - common)


def _bitmap(items: np.ndarray) -> np.ndarray:
    """Return the parity of the number of items on each bit, uint64 (BITS / 64)."""
    parities = np.bincount(items % BITS, minlength=BITS) % 2 == 1
    return np.packbits(parities).view(np.uint64)
