"""The dense probe on the raw activations, and the control on shuffled labels."""

from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import Arm
from pipeline.probes.models import Model

ARMS = [
    Arm("dense", lambda views: views["dense"], Model(StandardScaler), elsewhere=Model(StandardScaler)),
    Arm("dense_shuffled", lambda views: views["dense"], Model(StandardScaler), permuted=True),
]
