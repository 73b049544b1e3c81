"""The state of a training run."""

import math
from dataclasses import dataclass, field

import torch

from pipeline.sae.architectures.base import Memory, Weights


@dataclass
class Run:
    """Everything that changes while training: what a checkpoint holds."""

    weights: Weights
    memory: Memory
    optimizer: torch.optim.Adam
    step: int = 0
    best: Weights = field(default_factory=dict)
    """The weights of the epoch with the lowest held-out loss."""
    best_fvu: float = math.inf
    """Their fraction of variance unexplained."""
    stale_epochs: int = 0
    """Epochs since then."""
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)
    """Rows (step, fraction of variance unexplained, L0, dead fraction)."""
