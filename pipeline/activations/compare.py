"""Measure how far one model's activations are from another's, such as a quantised model's from the original's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.core.points import Point
from pipeline.lm.forward import PromptForward
from pipeline.lm.mask import counted, norm_limit, norms_of
from pipeline.lm.tokens import PromptTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def relative_errors(
    model: "PreTrainedModel",
    reference: "PreTrainedModel",
    tokens: PromptTokens,
    points: Sequence[Point],
    batch_tokens: int,
    prompts: int = 256,
) -> dict[str, float]:
    """Return ||A - R|| / ||R|| (Frobenius norms) for each point, over the first `prompts` prompts.

    A are the activations of `model` and R those of `reference`, both (tokens, width) in float32. Only tokens that
    count in `reference` are compared (see `pipeline.lm.mask`): outliers would drown the others.
    """
    some = range(min(prompts, len(tokens.ids)))
    offsets = np.cumsum([0, *(len(tokens.kept[prompt]) for prompt in some)])
    candidate = np.concatenate([tokens.candidates(prompt) for prompt in some])
    found, expected = (
        PromptForward(each, tokens, points, batch_tokens=batch_tokens, dtype=torch.float32)
        .run(some, lambda *_: None)
        .of
        for each in (model, reference)
    )
    errors = {}
    for point in points:
        norms = norms_of(expected[point]).numpy()
        rows = torch.from_numpy(counted(candidate, norms, norm_limit(norms, candidate), offsets))
        errors[str(point)] = float((found[point][rows] - expected[point][rows]).norm() / expected[point][rows].norm())
    return errors
