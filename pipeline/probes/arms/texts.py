"""What the arms that read no activations get: the prompts, with their terms counted once."""

from functools import cached_property

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from pipeline.probes.models import Matrix
from pipeline.probes.task import Prompts


class Texts:
    """prompts; counts (N, terms): how often each has each word 1-2-gram, then each run of 2-5 characters in a word."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts

    @cached_property
    def _counted(self) -> tuple[Matrix, int, np.ndarray]:
        words = CountVectorizer(ngram_range=(1, 2))
        runs = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5))
        both = [vectorizer.fit_transform(self.prompts.texts) for vectorizer in (words, runs)]
        terms = [f"word {term}" for term in words.get_feature_names_out()]
        number = len(terms)
        terms += [f"char {term}" for term in runs.get_feature_names_out()]
        return sparse.csr_array(sparse.hstack(both), dtype=np.float32), number, np.array(terms, dtype=object)

    @property
    def counts(self) -> Matrix:
        return self._counted[0]

    @property
    def words(self) -> int:
        """How many of the terms are words; they come first."""
        return self._counted[1]

    @property
    def terms(self) -> np.ndarray:
        """The terms, (terms) of str."""
        return self._counted[2]
