"""The state of a training run."""

import math
from dataclasses import dataclass, field

import torch

from pipeline.sae.architectures.base import Memory, Weights


@dataclass
class Run:
    """Everything that changes while training: what a checkpoint holds.

    best: the weights of the epoch with the lowest held-out loss; curve: (step, fvu, l0, dead fraction).
    """

    weights: Weights
    memory: Memory
    optimizer: torch.optim.Adam
    step: int = 0
    best: Weights = field(default_factory=dict)
    best_fvu: float = math.inf
    stale_epochs: int = 0
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)
