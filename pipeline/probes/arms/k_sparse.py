"""Probes on few features: latents of the trained and of the untrained SAE, raw neurons, principal components.

Which ones is chosen inside each fold: the k that tell the classes apart best on their own (k-sparse probing, Gurnee
et al. 2023, "Finding Neurons in a Haystack", https://arxiv.org/abs/2305.01610), or the first k components.
"""

from functools import partial

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pipeline.judging.arm import USUAL_K
from pipeline.probes.arms.base import SIZES, Arm
from pipeline.probes.models import BestColumns, Matrix, Model


class Components(TransformerMixin, BaseEstimator):
    """As many principal components of standardised features as there are, up to k."""

    def __init__(self, k: int) -> None:
        self.k = k

    def fit(self, matrix: Matrix, labels: object = None) -> "Components":
        self.scaler_ = StandardScaler().fit(matrix)
        pca = PCA(min(self.k, *matrix.shape), svd_solver="auto", random_state=0)
        self.pca_ = pca.fit(self.scaler_.transform(matrix))
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        return self.pca_.transform(self.scaler_.transform(matrix))

    def weights(self, k: int) -> dict[str, np.ndarray]:
        """The first k components (k, width) of the features, standardised by input_offset and input_scale (width)."""
        return {
            "components": np.ascontiguousarray(self.pca_.components_[:k]),
            "input_offset": self.scaler_.mean_,
            "input_scale": self.scaler_.scale_,
        }


def _best(*sizes: int) -> Model:
    return Model(StandardScaler, partial(BestColumns, max(sizes)), sizes=sizes)


OF_DENSE = [
    Arm("neurons", lambda views: views["dense"], _best(*SIZES)),
    Arm("pca", lambda views: views["dense"], Model(StandardScaler, partial(Components, max(SIZES)), sizes=SIZES)),
]
OF_LATENTS = [
    Arm(
        "sae",
        lambda views: views["latents"],
        _best(*SIZES),
        in_other_settings=_best(USUAL_K),
        stable=USUAL_K,
    ),
    Arm("untrained", lambda views: views["untrained"], _best(*SIZES)),
]
