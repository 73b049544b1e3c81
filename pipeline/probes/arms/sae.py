"""All latents of the SAE: under an L2 and an L1 penalty, as they are or as active or not, and beside the dense ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.preprocessing import MaxAbsScaler

from pipeline.probes.arms.base import Arm
from pipeline.probes.models import Matrix, Model


def _active(views: Mapping[str, Mapping[str, Matrix]]) -> dict[str, Matrix]:
    return {pooling: (matrix > 0).astype(np.float32) for pooling, matrix in views["latents"].items()}


def _with_dense(views: Mapping[str, Mapping[str, Any]]) -> dict[str, Matrix]:
    return {
        pooling: sparse.csr_array(sparse.hstack([sparse.csr_array(views["dense"][pooling]), matrix]))
        for pooling, matrix in views["latents"].items()
    }


ARMS = [
    Arm("sae", lambda views: views["latents"], Model(MaxAbsScaler), elsewhere=Model(MaxAbsScaler)),
    Arm("sae-l1", lambda views: views["latents"], Model(MaxAbsScaler, l1=True)),
    Arm("sae-binary", _active, Model(MaxAbsScaler)),
    Arm("dense-and-sae", _with_dense, Model(MaxAbsScaler)),
    Arm("untrained", lambda views: views["untrained"], Model(MaxAbsScaler)),
]
