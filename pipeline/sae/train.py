"""Training a sparse autoencoder on activations held in memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.progress import progress
from pipeline.sae.architectures import ARCHITECTURES, Architecture, keep_top_k
from pipeline.sae.model import Sae, fold

WARM_UP, DECAY = 0.05, 0.2  # shares of the steps
OUTLIER_NORM = 10.0  # tokens with a norm of more than this many medians are left out
CHUNK = 4096  # tokens encoded at once outside training


@dataclass
class TrainState:
    """What the step needs beside the weights. last_fired (L): tokens seen since each latent was active."""

    weights: dict[str, Tensor]
    last_fired: Tensor
    window: int  # a latent is dead after this many tokens without firing


def train_sae(
    acts_ND: Tensor,
    *,
    architecture: str,
    width: int,
    k: int,
    lr: float | None = None,
    batch_size: int = 1024,
    epochs: int = 10,
    aux_coefficient: float = 1 / 32,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> Sae:
    """Train on activations (N, d) of any float dtype; return an Sae for activations as they are given.

    Activations are centred on their mean and scaled to a mean norm of sqrt(d) for training, and both are
    folded into the weights afterwards. The loss is the fraction of variance unexplained plus AuxK: dead
    latents reconstruct the residual (Gao et al. 2024, appendix A.2), with a latent dead after an epoch without
    firing. Adam; decoder rows of norm 1, with the gradient along them projected out; the encoder starts as the
    decoder's transpose.

    Args:
        width: number of latents L.
        k: active latents a token.
        lr: peak learning rate; None is 2e-4 / sqrt(L / 2^14) (Gao et al. 2024, section 3).
        on_step: called with the step and its fraction of variance unexplained.

    Raises: UserError when there are no activations, or when training diverges.
    """
    rule = ARCHITECTURES[architecture](k)
    norms = torch.cat([rows.float().norm(dim=1) for rows in acts_ND.split(CHUNK)])
    acts_ND = acts_ND[norms <= OUTLIER_NORM * norms.median()] if len(norms) else acts_ND
    if len(acts_ND) < 2:
        raise UserError("there are no activations to train an SAE on: use more or longer prompts")
    mean, scale, variance = _statistics(acts_ND)
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, len(acts_ND))
    steps = epochs * (len(acts_ND) // batch_size)
    peak = lr if lr is not None else 2e-4 / math.sqrt(width / 2**14)

    state = TrainState(_initial(acts_ND.shape[1], width, generator), torch.zeros(width), len(acts_ND))
    optimizer = torch.optim.Adam(list(state.weights.values()), lr=peak, betas=(0.9, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, steps))
    step = 0
    with progress(steps * batch_size, f"training {architecture}", "token") as bar:
        for _ in range(epochs):
            order = torch.randperm(len(acts_ND), generator=generator)
            for batch in order.split(batch_size):
                if len(batch) < batch_size:
                    continue
                x_BD = (acts_ND[batch].float() - mean) * scale
                fvu = _step(state, rule, x_BD, variance, aux_coefficient, optimizer)
                schedule.step()
                if not math.isfinite(fvu):
                    raise UserError(
                        f"training of {architecture} diverged at step {step} with learning rate {peak:.2g}: "
                        "lower the variant's lr"
                    )
                if on_step:
                    on_step(step, fvu)
                bar.set_postfix(fvu=f"{fvu:.3f}", refresh=False)
                bar.update(len(batch))
                step += 1
    weights = {name: weight.detach() for name, weight in state.weights.items()}
    threshold = rule.threshold(
        (_pre_activations(weights, (rows.float() - mean) * scale) for rows in acts_ND.split(CHUNK)),
        len(acts_ND),
    )
    return fold(weights, mean, scale, threshold, k if threshold is None else None)


def _step(
    state: TrainState,
    rule: Architecture,
    x_BD: Tensor,
    variance: float,
    aux_coefficient: float,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One optimizer step; returns the batch's fraction of variance unexplained."""
    weights = state.weights
    pre_BL = _pre_activations(weights, x_BD)
    latents_BL = rule.select(pre_BL)
    error_BD = x_BD - (latents_BL @ weights["W_dec"] + weights["b_dec"])
    fvu = error_BD.square().sum(dim=1).mean() / variance
    loss = fvu
    dead = state.last_fired > state.window
    dead_count = int(dead.sum())
    if aux_coefficient and dead_count:
        k_aux = min(x_BD.shape[1] // 2, dead_count)
        aux_BL = keep_top_k(pre_BL[:, dead], k_aux)
        residual = error_BD.detach()
        missed = (residual - aux_BL @ weights["W_dec"][dead]).square().sum(dim=1).mean()
        loss = loss + aux_coefficient * missed / residual.square().sum(dim=1).mean().clamp_min(1e-12)
    loss.backward()
    decoder = weights["W_dec"]
    assert decoder.grad is not None
    with torch.no_grad():
        decoder.grad -= (decoder.grad * decoder).sum(dim=1, keepdim=True) * decoder
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decoder /= decoder.norm(dim=1, keepdim=True)
        fired = (latents_BL > 0).any(dim=0)
        state.last_fired += len(x_BD)
        state.last_fired[fired] = 0
    return fvu.item()


def _initial(d: int, latents: int, generator: torch.Generator) -> dict[str, Tensor]:
    decoder = torch.randn(latents, d, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    weights = {
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.zeros(latents),
        "W_dec": decoder.clone(),
        "b_dec": torch.zeros(d),
    }
    return {name: weight.requires_grad_() for name, weight in weights.items()}


def _pre_activations(weights: dict[str, Tensor], x_BD: Tensor) -> Tensor:
    return (x_BD - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]


def _statistics(acts_ND: Tensor) -> tuple[Tensor, float, float]:
    """The mean (d), the scale to a mean norm of sqrt(d), and the total variance after both."""
    total = sum((rows.double().sum(dim=0) for rows in acts_ND.split(CHUNK)), torch.zeros(acts_ND.shape[1]).double())
    mean = total / len(acts_ND)
    norm = square = 0.0
    for rows in acts_ND.split(CHUNK):
        norms = (rows.double() - mean).norm(dim=1)
        norm += norms.sum().item()
        square += norms.square().sum().item()
    scale = math.sqrt(acts_ND.shape[1]) * len(acts_ND) / max(norm, 1e-12)
    return mean.float(), scale, max(square / len(acts_ND) * scale**2, 1e-12)


def _schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate: linear warm-up, constant, linear decay to 0."""
    return min((step + 1) / max(WARM_UP * steps, 1), 1.0, (steps - step) / (DECAY * steps))
