"""Probes on few features: latents of the trained and of the untrained SAE, raw neurons, principal components.

Which ones is chosen inside each fold: the k that tell the classes apart best on their own (k-sparse probing, Gurnee
et al. 2023, "Finding Neurons in a Haystack", https://arxiv.org/abs/2305.01610), or the first k components.
"""

from collections.abc import Sequence
from functools import partial

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import FEW, SIZES, Arm
from pipeline.probes.models import Matrix, Model, Ranked


def ranked(sizes: Sequence[int]) -> BaseEstimator:
    return make_pipeline(Ranked(max(sizes)), StandardScaler())


class Components(TransformerMixin, BaseEstimator):
    """As many principal components as there are, up to k."""

    def __init__(self, k: int) -> None:
        self.k = k

    def fit(self, matrix: Matrix, labels: object = None) -> "Components":
        self.pca_ = PCA(min(self.k, *matrix.shape), svd_solver="auto", random_state=0).fit(matrix)
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        return self.pca_.transform(matrix)


def components(sizes: Sequence[int]) -> BaseEstimator:
    return make_pipeline(StandardScaler(), Components(max(sizes)), StandardScaler())


OF_DENSE = [
    Arm("neurons", lambda views: views["dense"], Model(partial(ranked, SIZES), sizes=SIZES)),
    Arm("pca", lambda views: views["dense"], Model(partial(components, SIZES), sizes=SIZES)),
]
OF_LATENTS = [
    Arm(
        "sae",
        lambda views: views["latents"],
        Model(partial(ranked, SIZES), sizes=SIZES),
        elsewhere=Model(partial(ranked, FEW), sizes=FEW),
        stable=FEW[0],
    ),
    Arm("untrained", lambda views: views["untrained"], Model(partial(ranked, SIZES), sizes=SIZES)),
]
