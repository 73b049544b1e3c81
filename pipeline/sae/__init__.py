"""Sparse autoencoders: train one on any activations, save it where SAELens can load it, use it.

from pathlib import Path
from pipeline.sae import Sae, measure, train_sae

sae = train_sae(acts_ND, architecture="batch_topk", width=1024, k=32)
sae.save(Path("sae"))
latents_NL = Sae.load(Path("sae")).encode(acts_ND)
metrics = measure(sae, acts_ND).metrics  # fvu, l0 and others
"""

from typing import TYPE_CHECKING

from pipeline.core.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.sae.metrics import measure
    from pipeline.sae.model import Sae
    from pipeline.sae.train import train_sae
else:
    _HOMES = {"Sae": "pipeline.sae.model", "measure": "pipeline.sae.metrics", "train_sae": "pipeline.sae.train"}
    __getattr__, __dir__ = on_demand(__name__, _HOMES)

__all__ = ["Sae", "measure", "train_sae"]
