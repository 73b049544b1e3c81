"""The arms of stage probe_dense: on the raw activations at one point."""

from pipeline.probes.arms import attention, dense, k_sparse, mlp, rbf
from pipeline.probes.arms.base import AnyArm

ARMS: list[AnyArm] = [*dense.ARMS, *attention.ARMS, *rbf.ARMS, *mlp.ARMS, *k_sparse.OF_DENSE]
