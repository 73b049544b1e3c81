"""The arms of stage probe_text: they read no activations."""

from pipeline.probes.arms import length, one_word, tfidf
from pipeline.probes.arms.base import AnyArm

ARMS: list[AnyArm] = [*tfidf.ARMS, *length.ARMS, *one_word.ARMS]
