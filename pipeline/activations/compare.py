"""How far one model's activations are from another's, such as a quantised model's from the original's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.activations.forward import PromptForward
from pipeline.activations.tokens import PromptTokens
from pipeline.points import Point

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
    """For each point ||A - R|| / ||R|| (Frobenius) of the activations of the first `prompts` prompts.

    A are the activations of `model`, R those of `reference`, both (tokens, width) in float32. First tokens are left
    out: their norms are many times the others', and would drown them.
    """
    some = range(min(prompts, len(tokens.ids)))
    later = torch.from_numpy(np.concatenate([tokens.kept[prompt] > 0 for prompt in some]))
    found, expected = (
        PromptForward(each, tokens, points, batch_tokens=batch_tokens, dtype=torch.float32)
        .run(some, lambda *_: None)
        .of
        for each in (model, reference)
    )
    return {
        str(point): float((found[point][later] - expected[point][later]).norm() / expected[point][later].norm())
        for point in points
    }
