"""What the arms that read no activations get: the prompts, with their terms counted once."""

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from pipeline.core.errors import UserError
from pipeline.probes.models import Matrix
from pipeline.prompts.table import Prompts


class Texts:
    """prompts; counts (N, terms): how often each has each word 1-2-gram, then each run of 2-5 characters in a word;
    words: how many of the terms are words; terms (terms): str."""

    def __init__(self, prompts: Prompts) -> None:
        """Raise UserError when the prompts have no terms."""
        words = CountVectorizer(ngram_range=(1, 2))
        runs = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5))
        try:
            both = [vectorizer.fit_transform(prompts.texts) for vectorizer in (words, runs)]
        except ValueError:
            raise UserError("the prompts have no words: use other data") from None
        self.prompts = prompts
        self.counts: Matrix = sparse.csr_array(sparse.hstack(both), dtype=np.float32)
        self.counts.sort_indices()  # else sums within a row are made in an order that other prompts decide
        self.words = len(words.vocabulary_)
        terms = [f"word {term}" for term in words.get_feature_names_out()]
        self.terms = np.array(terms + [f"char {term}" for term in runs.get_feature_names_out()], dtype=object)
