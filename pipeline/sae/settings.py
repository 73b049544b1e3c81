"""Check what `train_sae` is called with."""

import math
from typing import Any

from pipeline.core.errors import UserError, shown
from pipeline.sae.architectures import ARCHITECTURES
from pipeline.sae.check import is_whole

_MOST = 2**31
_COUNTS = {"width": (1, _MOST), "batch_size": (1, _MOST), "epochs": (1, _MOST), "seed": (0, 2**32 - 1)}


def check_settings(
    *, architecture: str, k: int, lr: float | None, patience: int | None, aux_coefficient: float, **counts: int
) -> None:
    """Raise UserError that names a setting, its value and what is allowed.

    Args:
        counts: width, batch_size, epochs, seed.
    """
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise UserError(f"architecture {shown(architecture)} is not known: use one of {', '.join(ARCHITECTURES)}")
    bounds = _COUNTS | {"k": (1, counts["width"]), "patience": (1, _MOST)}
    for name, value in {**counts, "k": k, "patience": patience}.items():
        least, most = bounds[name]
        if not is_whole(value, least, most) and not (name == "patience" and value is None):
            most_is = f"the width, {most}," if name == "k" else str(most)
            raise UserError(f"{name} = {shown(value)} is not allowed: a whole number from {least} to {most_is} is")
    if lr is not None and not (_is_finite(lr) and lr > 0):
        raise UserError(f"lr = {shown(lr)} is not allowed: a number above 0 is")
    if not (_is_finite(aux_coefficient) and aux_coefficient >= 0):
        raise UserError(f"aux_coefficient = {shown(aux_coefficient)} is not allowed: a number from 0 is")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
