"""The arms of stage probe_sae: on the latents of one sparse autoencoder, and their controls."""

from pipeline.probes.arms import k_sparse, random_relu, reconstruction, sae
from pipeline.probes.arms.base import AnyArm

ARMS: list[AnyArm] = [*sae.ARMS, *k_sparse.OF_LATENTS, *reconstruction.ARMS, *random_relu.ARMS]
