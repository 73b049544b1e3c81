"""The arms of the comparison, by the stage that fits them. A new arm is a file here and its name in one of these."""

from pipeline.probes.arms import attention, dense, k_sparse, length, one_word, reconstruction, sae, tfidf
from pipeline.probes.arms.attention import Attention
from pipeline.probes.arms.base import Arm

AnyArm = Arm | Attention

TEXT: list[AnyArm] = [*tfidf.ARMS, *length.ARMS, *one_word.ARMS]
DENSE: list[AnyArm] = [*dense.ARMS, *attention.ARMS, *k_sparse.OF_DENSE]
SAE: list[AnyArm] = [*sae.ARMS, *k_sparse.OF_LATENTS, *reconstruction.ARMS]
