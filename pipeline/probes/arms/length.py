"""Prompt length alone, and with the source: what the way the prompts were collected gives away."""

import numpy as np
from sklearn.preprocessing import StandardScaler

from pipeline.probes.arms.base import Arm
from pipeline.probes.arms.texts import Texts
from pipeline.probes.models import Model
from pipeline.prompts.table import largest_sources


def _length(texts: Texts) -> np.ndarray:
    """Log length in characters and in words, (N, 2)."""
    return np.log1p([[len(text), len(text.split())] for text in texts.prompts.texts])


def _length_and_source(texts: Texts) -> np.ndarray:
    """And which of the largest sources it is, (N, 2 + sources).

    Sources are in the order of their first prompts, so that their names decide nothing, rounding included.
    """
    sources = texts.prompts.sources.tolist()
    columns = sorted(largest_sources(texts.prompts), key=sources.index)
    return np.hstack([_length(texts), np.array(sources)[:, None] == columns])


ARMS = [
    Arm("length", lambda texts: {"none": _length(texts)}, Model(StandardScaler)),
    Arm("length_source", lambda texts: {"none": _length_and_source(texts)}, Model(StandardScaler)),
]
