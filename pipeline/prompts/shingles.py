"""Represent prompts as sets of character shingles, and compare the Jaccard similarity of many pairs at a time."""

from functools import cache

import numpy as np
from datasketch import MinHash
from datasketch.hashfunc import sha1_hash32
from scipy.sparse import csr_array

from pipeline.core.progress import progress

BITS = 1024  # of a prompt's bitmap, a multiple of 64
SHINGLES_AT_ONCE = 20_000_000  # bounds the memory of a comparison, whatever the length of the prompts


class ShingleSets:
    """The prompts' sets of shingles of `size` characters; case and runs of white space are ignored.

    Attributes:
        signatures: MinHash signatures with a fixed seed, unsigned integers of shape (prompts, permutations).
    """

    def __init__(self, prompts: list[str], size: int, permutations: int) -> None:
        hash_once = cache(lambda shingle: sha1_hash32(shingle.encode()))
        sketch = MinHash(num_perm=permutations, seed=1, hashfunc=hash_once)
        number_of: dict[str, int] = {}
        members, signatures = [], []
        parities = np.zeros((len(prompts), BITS), dtype=bool)  # of the number of shingles on each bit
        with progress(len(prompts), "shingles", "prompt") as bar:
            for row, prompt in enumerate(prompts):
                shingles = _shingles(prompt, size)
                numbers = np.sort([number_of.setdefault(shingle, len(number_of)) for shingle in shingles])
                members.append(numbers.astype(np.int32))
                parities[row] = np.bincount(numbers % BITS, minlength=BITS) % 2
                sketch.clear()
                sketch.update_batch(shingles)
                signatures.append(sketch.digest())
                bar.update()
        self.signatures = np.array(signatures)
        self._sizes = np.array([len(numbers) for numbers in members])
        ends = np.concatenate([[0], np.cumsum(self._sizes)])
        ones = np.ones(ends[-1], dtype=np.int8)
        self._sets = csr_array((ones, np.concatenate(members), ends), shape=(len(prompts), len(number_of)))
        self._bitmaps = np.packbits(parities, axis=1).view(np.uint64)

    def similar(self, left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
        """Return which pairs, of indices `left` and `right`, have a Jaccard similarity of at least `threshold`.

        Two sets differ in at least as many shingles as their bitmaps do in bits, where every shingle flips one bit
        ("Bitmap-Xor" of Sandes, Teodoro & Melo 2020, "Bitmap filter", arXiv:1711.07295). That rules out most pairs; the
        sets of the others are compared themselves.
        """
        total = self._sizes[left] + self._sizes[right]
        differing = np.bitwise_count(self._bitmaps[left] ^ self._bitmaps[right]).sum(axis=1)
        possible = np.flatnonzero(_jaccard((total - differing) / 2, total) >= threshold)
        found = []
        for part in np.array_split(possible, 1 + total[possible].sum() // SHINGLES_AT_ONCE):
            common = self._sets[left[part]].multiply(self._sets[right[part]]).sum(axis=1)
            found.append(part[_jaccard(common, total[part]) >= threshold])
        return np.concatenate(found)


def _jaccard(common: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the similarity of pairs with `common` elements in both sets and `total` in one plus the other."""
    return common / (total - common)


def _shingles(prompt: str, size: int) -> list[str]:
    """Return the distinct shingles, in the order of the prompt."""
    text = " ".join(prompt.lower().split())
    return list(dict.fromkeys(text[start : start + size] for start in range(max(len(text) - size + 1, 1))))
