"""All latents of the SAE: under an L2 and an L1 penalty, as they are or as active or not, and beside the dense ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from scipy import sparse
from sklearn.preprocessing import MaxAbsScaler

from pipeline.probes.arms.base import Arm
from pipeline.probes.models import Matrix, Model

Views = Mapping[str, Mapping[str, Matrix]]


class _Made(Mapping[str, Matrix]):
    """Features by pooling, made when they are asked for, so that those of one pooling are in memory at a time."""

    def __init__(self, poolings: Iterable[str], make: Callable[[str], Matrix]) -> None:
        self.poolings, self.make = list(poolings), make

    def __getitem__(self, pooling: str) -> Matrix:
        return self.make(pooling)

    def __iter__(self) -> Iterator[str]:
        return iter(self.poolings)

    def __len__(self) -> int:
        return len(self.poolings)


def _active(views: Views) -> Mapping[str, Matrix]:
    latents = views["latents"]
    return _Made(latents, lambda pooling: (latents[pooling] > 0).astype(np.float32))


def _with_dense(views: Views) -> Mapping[str, Matrix]:
    dense, latents = views["dense"], views["latents"]
    return _Made(
        latents,
        lambda pooling: sparse.csr_array(sparse.hstack([sparse.csr_array(dense[pooling]), latents[pooling]])),
    )


ARMS = [
    Arm("sae", lambda views: views["latents"], Model(MaxAbsScaler), in_other_settings=Model(MaxAbsScaler)),
    Arm("sae-l1", lambda views: views["latents"], Model(MaxAbsScaler, l1=True)),
    Arm("sae-binary", _active, Model(MaxAbsScaler), describe=lambda views, prepare: {"features": "active or not"}),
    Arm("dense-and-sae", _with_dense, Model(MaxAbsScaler)),
    Arm("untrained", lambda views: views["untrained"], Model(MaxAbsScaler)),
]
