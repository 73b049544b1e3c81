"""Activations of prompt sets: `extract` writes them, `ActivationStore` reads them.

from pipeline.activations.extract import extract
from pipeline.activations.store import ActivationStore
from pipeline.activations.tokens import tokenise
from pipeline.points import Point

tokens = tokenise(tokenizer, prompt_ids, prompts, max_tokens=768)
extract(model, tokens, [Point.parse("resid_post.18")], Path("acts"), batch_tokens=896)
acts_ND = ActivationStore(Path("acts"), "resid_post.18").read()
"""
