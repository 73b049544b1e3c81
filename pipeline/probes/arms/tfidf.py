"""TF-IDF of words and characters: the floor that says how much the words alone give away."""

from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfTransformer

from pipeline.core.errors import UserError
from pipeline.probes.arms.base import Arm
from pipeline.probes.arms.texts import Texts
from pipeline.probes.models import Matrix, Model

MIN_PROMPTS = 2  # that a term must be in
MAX_TERMS = 50_000  # of words and of characters each; the commonest


class Tfidf(TransformerMixin, BaseEstimator):
    """TF-IDF of counted terms (N, terms), the first `words` of them words, the others runs of characters.

    Which terms are kept, and their inverse document frequencies, come from the prompts it is fitted on. Both parts are
    normalised on their own, as scikit-learn's TfidfVectorizer does with sublinear_tf, min_df and max_features.
    """

    def __init__(self, words: int) -> None:
        self.words = words

    def fit(self, counts: Matrix, labels: object = None) -> "Tfidf":
        prompts = np.bincount(counts.indices, minlength=counts.shape[1])
        total = np.bincount(counts.indices, weights=counts.data, minlength=counts.shape[1])
        self.columns_, self.parts_ = [], []
        for span in (slice(0, self.words), slice(self.words, counts.shape[1])):
            common = np.flatnonzero(prompts[span] >= MIN_PROMPTS) + span.start
            kept = np.sort(common[np.argsort(-total[common], kind="stable")[:MAX_TERMS]])
            if len(kept):
                self.columns_.append(kept)
                self.parts_.append(TfidfTransformer(sublinear_tf=True).fit(counts[:, kept]))
        if not self.parts_:
            raise UserError(f"no word or run of characters is in {MIN_PROMPTS} of the train prompts: use more data")
        return self

    def transform(self, counts: Matrix) -> Matrix:
        parts = zip(self.parts_, self.columns_, strict=True)
        return sparse.csr_array(sparse.hstack([part.transform(counts[:, kept]) for part, kept in parts]))


def _model(texts: Texts) -> Model:
    return Model(None, partial(Tfidf, texts.words))


def _terms(texts: Texts, prepare: Tfidf) -> dict[str, list[Any]]:
    """What each feature counts, such as `word how to`, and its inverse document frequency."""
    weights = np.concatenate([part.idf_ for part in prepare.parts_])
    return {"terms": texts.terms[np.concatenate(prepare.columns_)].tolist(), "idf": weights.round(6).tolist()}


ARMS = [Arm("tfidf", lambda texts: {"none": texts.counts}, _model, in_other_settings=_model, describe=_terms)]
