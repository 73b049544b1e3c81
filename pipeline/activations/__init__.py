"""Activations of prompt sets: `extract` writes them, `ActivationStore` reads them.

from pathlib import Path
from pipeline.activations import ActivationStore, Point, extract, tokenise

tokens = tokenise(tokenizer, prompt_ids, prompts, max_tokens=768)
extract(model, tokens, [Point.parse("resid_post.18")], Path("acts"), batch_tokens=896)
acts_ND = ActivationStore(Path("acts"), "resid_post.18").read()
"""

from typing import TYPE_CHECKING

from pipeline.core.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.activations.extraction import extract
    from pipeline.activations.store import ActivationStore
    from pipeline.core.points import Point
    from pipeline.lm.tokens import tokenise
else:
    _HOMES = {
        "ActivationStore": "pipeline.activations.store",
        "Point": "pipeline.core.points",
        "extract": "pipeline.activations.extraction",
        "tokenise": "pipeline.lm.tokens",
    }
    __getattr__, __dir__ = on_demand(__name__, _HOMES)

__all__ = ["ActivationStore", "Point", "extract", "tokenise"]
