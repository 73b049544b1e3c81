"""The dense probe on the raw activations; with permuted labels it is the control for leaks."""

from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import Arm
from pipeline.probes.models import Model

ARMS = [
    Arm(
        "dense",
        lambda views: views["dense"],
        Model(StandardScaler),
        in_other_settings=Model(StandardScaler),
        control=True,
    ),
]
