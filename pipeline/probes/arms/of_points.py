"""The arms of stage probe_points: on the raw activations at all points side by side."""

from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import AnyArm, Arm
from pipeline.probes.models import Model

ARMS: list[AnyArm] = [Arm("dense", lambda views: views["dense"], Model(StandardScaler))]
