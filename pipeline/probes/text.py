"""The arms that read no activations: the floor under every other one."""

from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion


def tfidf() -> FeatureUnion:
    """TF-IDF of word 1-2-grams and character 2-5-grams, fitted on the prompts it is given."""
    common = {"sublinear_tf": True, "min_df": 2, "max_features": 50_000}
    return FeatureUnion(
        [
            ("word", TfidfVectorizer(ngram_range=(1, 2), **common)),
            ("char", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common)),
        ]
    )


def length_features(prompts: list[str]) -> np.ndarray:
    """Log length in characters and in words, (prompts, 2)."""
    return np.log1p([[len(prompt), len(prompt.split())] for prompt in prompts])


def terms_of(union: FeatureUnion) -> dict[str, list[Any]]:
    """What each feature of a fitted `tfidf()` counts, such as `word__how to`, and its inverse document frequency."""
    weights = np.concatenate([vectorizer.idf_ for _, vectorizer in union.transformer_list])
    return {"terms": union.get_feature_names_out().tolist(), "idf": weights.round(6).tolist()}
