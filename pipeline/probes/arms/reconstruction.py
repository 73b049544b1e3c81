"""The dense probe on what the SAE keeps of the activations, and on what it leaves out."""

from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import Arm
from pipeline.probes.models import Model

ARMS = [
    Arm("reconstruction", lambda views: views["reconstruction"], Model(StandardScaler)),
    Arm("residual", lambda views: views["residual"], Model(StandardScaler)),
]
