"""Sparse autoencoders: train one on any activations, save it where SAELens can load it, use it.

from pipeline.sae.train import train_sae
from pipeline.sae.model import Sae

sae = train_sae(acts_ND, architecture="batch_topk", width=8192, k=32)
sae.save(Path("sae"))
latents_NL = Sae.load(Path("sae")).encode(acts_ND)
"""
