"""The architectures that `train_sae` knows, by name.

To add one, write a subclass of `Architecture` in a file here, and name it below and in `pipeline/params/sae.py`.
"""

from pipeline.sae.architectures.base import Architecture
from pipeline.sae.architectures.penalised import Gated, JumpRelu, Relu
from pipeline.sae.architectures.topk import BatchTopK, Matryoshka, TopK

ARCHITECTURES: dict[str, type[Architecture]] = {
    "relu": Relu,
    "gated": Gated,
    "jump_relu": JumpRelu,
    "topk": TopK,
    "batch_topk": BatchTopK,
    "matryoshka": Matryoshka,
}
