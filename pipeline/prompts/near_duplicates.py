"""Groups of prompts that say almost the same, so that no group is ever divided between train and test."""

import numpy as np
from datasketch import MinHash, MinHashLSH
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.progress import progress

PERMUTATIONS = 128
RECALL = 0.999  # wanted chance that a pair exactly at the threshold becomes a candidate


def near_duplicate_groups(prompts: list[str], threshold: float, shingle_chars: int) -> np.ndarray:
    """Number the groups of near-duplicates: int64 of shape (N,), the same number for the same group.

    Two prompts are near-duplicates when the Jaccard similarity of their sets of character shingles (case and
    runs of white space ignored) is at least `threshold`; groups are the connected components of that relation.
    Candidates come from MinHash LSH with a fixed seed (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of
    Massive Datasets", section 3.4), and each is then checked exactly.
    """
    shingles = [_shingles(prompt, shingle_chars) for prompt in prompts]
    lsh = MinHashLSH(num_perm=PERMUTATIONS, params=_bands_and_rows(threshold))
    pairs: list[tuple[int, int]] = []
    with progress(len(prompts), "near-duplicates", "prompt") as bar:
        sketches = MinHash.generator(
            ([shingle.encode() for shingle in sorted(each)] for each in shingles),
            num_perm=PERMUTATIONS,
            seed=1,
        )
        for index, sketch in enumerate(sketches):
            for other in lsh.query(sketch):
                if _jaccard(shingles[index], shingles[other]) >= threshold:
                    pairs.append((other, index))
            lsh.insert(index, sketch, check_duplication=False)
            bar.update()
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(prompts), len(prompts)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _bands_and_rows(threshold: float) -> tuple[int, int]:
    """The most selective banding whose recall at the threshold, 1 - (1 - t^rows)^bands, is still RECALL."""
    rows = 1
    while 1 - (1 - threshold ** (rows + 1)) ** (PERMUTATIONS // (rows + 1)) >= RECALL:
        rows += 1
    return PERMUTATIONS // rows, rows


def _shingles(prompt: str, size: int) -> set[str]:
    text = " ".join(prompt.lower().split())
    return {text[start : start + size] for start in range(max(len(text) - size + 1, 1))}


def _jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right)
