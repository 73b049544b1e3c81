"""Train a sparse autoencoder."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.progress import progress
from pipeline.sae.architectures import ARCHITECTURES
from pipeline.sae.architectures.base import Architecture, Memory, Step, Weights
from pipeline.sae.check import all_finite, check_tokens
from pipeline.sae.checkpoint import Checkpoint
from pipeline.sae.data import Activations
from pipeline.sae.model import Sae, fold
from pipeline.sae.run import Run
from pipeline.sae.settings import check_settings

WARM_UP, DECAY = 0.05, 0.2  # shares of the steps
LEAST_VARIANCE = 1e-9  # mean |x|^2 of scaled activations is about d, unless there is nothing to scale
BETTER = 0.999  # an epoch that does not bring the held-out loss below this share of the best so far is in vain


def train_sae(
    acts: Tensor | Activations,
    *,
    architecture: str,
    width: int,
    k: int,
    held_out: Tensor | None = None,
    lr: float | None = None,
    batch_size: int = 1024,
    epochs: int = 10,
    patience: int | None = 3,
    aux_coefficient: float = 1 / 32,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    checkpoint_seconds: float = 60.0,
    on_step: Callable[[int, float, float, float], None] | None = None,
) -> Sae:
    """Train on activations (N, d) of any float type. Return an Sae for activations as they are given.

    For training, activations are centred on their mean and scaled to a mean norm of sqrt(d); both are folded into the
    weights afterwards. The optimizer is Adam with float32 weights, on gradients scaled to norm 1, with warm-up at the
    start and linear decay at the end. The rows of the saved decoder have norm 1. Outliers are left out.

    Args:
        architecture: a name in ARCHITECTURES.
        width: number of latents L.
        k: active latents per token: exactly, or on average where the architecture has no exact number.
        held_out: activations (M, d) that training does not see. With them, training ends after `patience` epochs
            without gain on them, and keeps the weights of the best epoch.
        lr: peak learning rate; None is 2e-4 / sqrt(L / 2^14) (Gao et al. 2024, section 3).
        aux_coefficient: weight of AuxK, by which dead latents (without firing for an epoch) learn what the others miss.
        checkpoint: file from which a run that was stopped goes on, if it has the same settings and data. It is written
            every `checkpoint_seconds` and removed at the end.
        on_step: called with step, fraction of variance unexplained, L0 and dead fraction. After resuming, it is first
            called for all steps that were made before.

    Raises: UserError when a setting is not allowed, when there are no activations, when all are the same or some are
        not finite, or when training diverges; a checkpoint stays.
    """
    check_settings(
        architecture=architecture,
        width=width,
        k=k,
        lr=lr,
        batch_size=batch_size,
        epochs=epochs,
        patience=patience,
        aux_coefficient=aux_coefficient,
        seed=seed,
    )
    if not isinstance(acts, Activations):
        check_tokens(acts, "acts")
    data = acts if isinstance(acts, Activations) else Activations.of(acts)
    if data.tokens < 2:
        raise UserError("there are no activations to train an SAE on: use more or longer prompts")
    if data.variance < LEAST_VARIANCE:
        raise UserError("the activations to train an SAE on are all the same: use others")
    if held_out is not None:
        check_tokens(held_out, "held_out", data.d)
        held_out = data.counted(held_out)
        if not len(held_out):
            raise UserError("held_out has no tokens: give some, or leave it out")
    batch_size = min(batch_size, data.tokens)
    peak = lr if lr is not None else 2e-4 / math.sqrt(width / 2**14)
    per_epoch = data.steps(batch_size)
    steps = epochs * per_epoch
    rule = ARCHITECTURES[architecture](width, k, aux_coefficient=aux_coefficient, variance=data.variance, steps=steps)
    run = _start(rule, data, peak, seed)
    settings = [architecture, width, k, peak, batch_size, epochs, patience, aux_coefficient, seed, data.tokens]
    saved = Checkpoint(
        None if checkpoint is None else Path(checkpoint),
        [*settings, data.scale, float(data.mean.double().sum())],
        checkpoint_seconds,
    )
    saved.load(run)
    for point in run.curve:
        if on_step:
            on_step(*point)
    with progress(steps * batch_size, f"training {architecture}", "token") as bar:
        bar.update(run.step * batch_size)
        while run.step < steps and (patience is None or run.stale_epochs < patience):
            epoch, done = divmod(run.step, per_epoch)
            for number, x_BD in enumerate(data.batches(batch_size, epoch, seed)):
                if number < done:  # before the checkpoint
                    continue
                _optimise(run, rule, x_BD, data.tokens, peak * _schedule(run.step, steps))
                point = run.curve[-1]
                if on_step:
                    on_step(*point)
                bar.set_postfix(fvu=f"{point[1]:.3f}", l0=f"{point[2]:.1f}", refresh=False)
                bar.update(len(x_BD))
                run.step += 1
                if run.step % per_epoch == 0 and held_out is not None:
                    _keep_best(run, rule, data, held_out)
                saved.save_if_due(run)
    weights = run.best or {name: weight.detach() for name, weight in run.weights.items()}
    if not all_finite(weights):
        raise _diverged(run.step, peak)
    with torch.no_grad():
        weights = _unit_decoder(weights)
        thresholds = rule.thresholds(weights, data.in_order(), data.tokens)
    sae = fold(weights, data.mean, data.scale, thresholds, rule.saved_as, k)
    saved.remove()
    return sae


def _start(rule: Architecture, data: Activations, lr: float, seed: int) -> Run:
    generator = torch.Generator().manual_seed(seed)
    initial = rule.initial(data.d, generator)
    weights = {name: weight.to(data.device).requires_grad_() for name, weight in initial.items()}
    memory = Memory(torch.zeros(rule.width, device=data.device))
    fused = data.device.startswith(("cpu", "cuda"))
    return Run(weights, memory, torch.optim.Adam(list(weights.values()), lr=lr, betas=(0.9, 0.999), fused=fused))


def _optimise(run: Run, rule: Architecture, x_BD: Tensor, window: int, lr: float) -> None:
    """Make one optimizer step. `window`: tokens without firing after which a latent is dead."""
    step = rule.step(run.weights, x_BD, run.memory, window)
    fvu = step.fvu.item()
    if not math.isfinite(fvu) or not math.isfinite(step.loss.item()):
        raise _diverged(run.step, lr)
    step.loss.backward()
    decoder = run.weights["W_dec"]
    assert decoder.grad is not None
    with torch.no_grad():
        if rule.unit_decoder:
            decoder.grad.addcmul_(torch.linalg.vecdot(decoder.grad, decoder)[:, None], decoder, value=-1)
        _normalise([weight.grad for weight in run.weights.values() if weight.grad is not None])
        run.optimizer.param_groups[0]["lr"] = lr
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        if rule.unit_decoder:
            decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True))
        rule.remember(run.memory, step, len(x_BD))
        dead = (run.memory.last_fired > window).float().mean().item()
    run.curve.append((run.step, round(fvu, 4), round(step.l0, 2), round(dead, 4)))


def _diverged(step: int, lr: float) -> UserError:
    return UserError(f"training diverged at step {step} with learning rate {lr:.2g}: lower the variant's lr")


def _normalise(gradients: list[Tensor]) -> None:
    """Scale the gradient to norm 1: else Adam's long memory of the large first ones would slow down all later steps."""
    norm = torch.nn.utils.get_total_norm(gradients)
    for gradient in gradients:
        gradient.div_(norm + 1e-12)


def _unit_decoder(weights: Weights) -> Weights:
    """Return the same autoencoder with decoder rows of norm 1."""
    norms = torch.linalg.vector_norm(weights["W_dec"], dim=1)
    scaled = {name: weights[name] * norms for name in ("b_enc", "b_gate", "b_mag") if name in weights}
    return weights | scaled | {"W_dec": weights["W_dec"] / norms[:, None], "W_enc": weights["W_enc"] * norms[:, None]}


@torch.no_grad()
def _keep_best(run: Run, rule: Architecture, data: Activations, held_out: Tensor) -> None:
    """Note the held-out loss after an epoch, and keep the weights if it is the lowest so far."""
    parts: list[tuple[int, Step]] = []
    for rows in held_out.split(2048):
        x_BD = (rows.to(data.device).float() - data.mean) * data.scale
        no_dead = Memory(torch.zeros_like(run.memory.last_fired), run.memory.dials)
        parts.append((len(rows), rule.step(run.weights, x_BD, no_dead, data.tokens)))
    fvu = sum(count * step.fvu.item() for count, step in parts) / sum(count for count, _ in parts)
    if sum(count * step.l0 for count, step in parts) > 1.1 * rule.k * len(held_out):
        return  # a penalty is still on its way to k: the loss can only rise
    run.stale_epochs = 0 if fvu < BETTER * run.best_fvu else run.stale_epochs + 1
    if fvu < run.best_fvu:
        run.best_fvu = fvu
        run.best = {name: weight.detach().clone() for name, weight in run.weights.items()}


def _schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: linear warm-up, constant, linear decay to 0."""
    return min((step + 1) / max(WARM_UP * steps, 1), 1.0, (steps - step) / (DECAY * steps))
