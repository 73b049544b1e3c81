"""How fast sparse autoencoders are trained, beside SAELens, dictionary_learning and sparsify, and how well.

All see the same activations (sums of a few directions of a known dictionary, with noise, centred and scaled to a
mean norm of sqrt(d)), batches, steps, learning rate with warm-up and decay, first weights, and float32. Each trains
in a process of its own, one after another, with the environment variables that the pipeline's stages set. fvu is on
held-out activations after training, where BatchTopK chooses its
latents batch by batch as in training: the thresholds that take a batch's place later are not compared.

limit_ms is one float32 encoder product and one fused Adam step over both weight matrices, measured in the same run.
"""

import argparse
import itertools
import json
import math
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pipeline.stages  # noqa: F401  (sets the environment)

SHAPES = {  # name -> batch, d, width, k, steps
    "small": (2048, 768, 6_144, 32, 100),
    "large": (2048, 2_560, 20_480, 32, 30),
}
HELD_OUT = 4  # batches
WARM_UP, DECAY = 0.05, 0.2
Trained = tuple[list[float], Callable[[Tensor], Tensor]]  # seconds a step, and the reconstruction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="default: all")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), help="default: all")
    parser.add_argument("--steps", type=int, help="default: 100 at the small shape, 30 at the large one")
    parser.add_argument(
        "--repeats", type=int, default=1, help="rounds over all, of which medians are given; default: 1"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    tasks = [
        (library, architecture, shape)
        for shape in options.shapes
        for architecture in ("topk", "batch_topk")
        for library in options.libraries
        if (library, architecture) != ("sparsify", "batch_topk")  # it has none
    ]
    measured: dict[tuple[str, str, str], list[dict[str, Any]]] = {task: [] for task in tasks}
    for _ in range(options.repeats):
        for task in tasks:
            print(", ".join(task), file=sys.stderr)
            command = [sys.executable, "-m", "bench.sae", "--one", *task, "--device", options.device]
            command += ["--steps", str(options.steps)] if options.steps else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"{task[0]} does not run here", file=sys.stderr)
                continue
            measured[task].append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(measured[task][-1]), flush=True)
    rows = [_median(rounds) for rounds in measured.values() if rounds]
    for row in rows:
        ours = next(
            (each for each in rows if each["library"] == "ours" and _same_task(each, row)),
            None,
        )
        if ours and row is not ours:
            speed = ours["tokens_per_second"] / row["tokens_per_second"]
            print(
                f"{row['library']} {row['architecture']} d {row['d']}: {speed:.2f} times as fast, "
                f"fvu {ours['fvu']:.4f} against {row['fvu']:.4f}"
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of several measurements of the same thing."""
    return {
        key: round(statistics.median(row[key] for row in rounds), 5) if isinstance(value, float) else value
        for key, value in rounds[0].items()
    }


def _same_task(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a[key] == b[key] for key in ("architecture", "d", "width"))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    library, architecture, shape = options.one
    batch, d, width, k, steps = SHAPES[shape]
    steps = options.steps or steps
    acts = activations((steps + HELD_OUT) * batch, d)
    train, held_out = acts[: steps * batch], acts[steps * batch :].to(options.device)
    lr = 2e-4 / math.sqrt(width / 2**14)
    seconds, reconstruct = LIBRARIES[library](train, architecture, width, k, batch, steps, lr, options.device)
    with torch.no_grad():
        error = sum((x - reconstruct(x)).square().sum().item() for x in held_out.split(batch))
    step = statistics.median(seconds[len(seconds) // 10 + 1 :])
    return {
        "library": library,
        "architecture": architecture,
        "batch": batch,
        "d": d,
        "width": width,
        "k": k,
        "steps": steps,
        "tokens_per_second": round(batch / step, 1),
        "fvu": round(error / (held_out - held_out.mean(dim=0)).square().sum().item(), 5),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "step_ms": round(1e3 * step, 2),
        "limit_ms": round(limit_ms(batch, d, width, options.device), 2),
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
    }


def activations(tokens: int, d: int) -> Tensor:
    """Sums of 24 directions of 4d, some much more common than others, with noise (tokens, d), float32."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=generator), dim=1)
    commonness = 1 / torch.arange(10, 4 * d + 10)
    parts = []
    for count in [1024] * (tokens // 1024):
        chosen = torch.multinomial(commonness.expand(count, -1), 24, generator=generator)
        strengths = 0.5 + torch.rand(count, 24, generator=generator)
        parts.append(torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=strengths, mode="sum"))
        parts[-1] += 0.05 * torch.randn(count, d, generator=generator)
    acts = torch.cat(parts)
    acts -= acts.mean(dim=0)
    return acts * (math.sqrt(d) / acts.norm(dim=1).mean())


def limit_ms(batch: int, d: int, width: int, device: str) -> float:
    x, weights = torch.randn(batch, d, device=device), [torch.randn(width, d, device=device) for _ in range(2)]
    for each in weights:
        each.requires_grad_().grad = torch.randn_like(each)
    optimizer = torch.optim.Adam(weights, fused=True)
    seconds = []
    for _ in range(6):
        start = now(device)
        with torch.no_grad():
            x @ weights[0].T
        optimizer.step()
        seconds.append(now(device) - start)
    return 1e3 * statistics.median(seconds[1:])


def now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(
    train: Tensor, architecture: str, width: int, k: int, batch: int, steps: int, lr: float, device: str
) -> Trained:
    from pipeline.sae.data import Activations
    from pipeline.sae.train import train_sae

    times = [now(device)]
    sae = train_sae(
        Activations.of(train, device),
        architecture=architecture,
        width=width,
        k=k,
        lr=lr,
        batch_size=batch,
        epochs=1,
        on_step=lambda *_: times.append(now(device)),
    )
    sae.to(device)

    def reconstruct(x: Tensor) -> Tensor:
        latents = sae.encode(x)
        if architecture == "batch_topk":
            pre = ((x - sae.tensors["b_dec"]) @ sae.tensors["W_enc"] + sae.tensors["b_enc"]).relu().flatten()
            values, places = pre.topk(k * len(x))
            latents = torch.zeros_like(pre).scatter(0, places, values).view_as(latents)
        return sae.decode(latents)

    return _differences(times), reconstruct


def sae_lens(
    train: Tensor, architecture: str, width: int, k: int, batch: int, steps: int, lr: float, device: str
) -> Trained:
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    name = {"topk": "TopK", "batch_topk": "BatchTopK"}[architecture]
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(
        d_in=train.shape[1], d_sae=width, k=k, decoder_init_norm=1.0, device=device
    )
    sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
    first = initial(width, train.shape[1]).to(device)
    sae.W_enc.data, sae.W_dec.data = first.T.contiguous(), first.clone()
    settings = SAETrainerConfig(
        total_training_samples=len(train),
        train_batch_size_samples=batch,
        lr=lr,
        lr_end=lr,
        lr_warm_up_steps=round(WARM_UP * steps),
        lr_decay_steps=round(DECAY * steps),
        device=device,
        logger=LoggingConfig(log_to_wandb=False),
    )
    times: list[float] = []
    SAETrainer(settings, sae, _fed(train, batch, device, times)).fit()
    times.append(now(device))
    return _differences(times), lambda x: sae.decode(sae.encode(x))


def dictionary_learning(
    train: Tensor, architecture: str, width: int, k: int, batch: int, steps: int, lr: float, device: str
) -> Trained:
    # it wants nnsight for its buffers, which does not import beside current transformers; its trainers do not use it
    sys.modules["nnsight"] = types.ModuleType("nnsight")
    sys.modules["nnsight"].LanguageModel = object  # type: ignore[attr-defined]
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = {"topk": TopKTrainer, "batch_topk": BatchTopKTrainer}[architecture](
        steps=steps,
        activation_dim=train.shape[1],
        dict_size=width,
        k=k,
        layer=0,
        lm_name="none",
        lr=lr,
        warmup_steps=max(round(WARM_UP * steps), 1),
        decay_start=round((1 - DECAY) * steps),
        seed=0,
        device=device,
    )
    first = initial(width, train.shape[1]).to(device)
    trainer.ae.encoder.weight.data, trainer.ae.decoder.weight.data = first.clone(), first.T.contiguous()
    times: list[float] = []
    for step, x in enumerate(_fed(train, batch, device, times)):
        trainer.update(step, x)
    times.append(now(device))
    ae = trainer.ae
    return _differences(times), lambda x: ae.decode(ae.encode(x, use_threshold=False))


def sparsify(
    train: Tensor, architecture: str, width: int, k: int, batch: int, steps: int, lr: float, device: str
) -> Trained:
    """Its SparseCoder, with the steps that its trainer makes (which itself trains inside a language model)."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    coder = SparseCoder(train.shape[1], SparseCoderConfig(num_latents=width, k=k), device=device)
    first = initial(width, train.shape[1]).to(device)
    coder.encoder.weight.data, coder.W_dec.data = first.clone(), first.clone()
    optimizer = torch.optim.Adam(coder.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(WARM_UP * steps, 1), 1.0, (steps - step) / (DECAY * steps))
    )
    times: list[float] = []
    for x in _fed(train, batch, device, times):
        coder.set_decoder_norm_to_unit_norm()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    times.append(now(device))
    return _differences(times), lambda x: coder(x).sae_out


def initial(width: int, d: int) -> Tensor:
    """The decoder's rows, and the encoder's, that we begin with (width, d)."""
    rows = torch.randn(width, d, generator=torch.Generator().manual_seed(0))
    return rows / rows.norm(dim=1, keepdim=True)


def _fed(train: Tensor, batch: int, device: str, times: list[float]) -> Iterator[Tensor]:
    """Shuffled batches; notes the time at which each is asked for."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    for rows in order.split(batch):
        times.append(now(device))
        yield train[rows].to(device)


def _differences(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


LIBRARIES: dict[str, Callable[..., Trained]] = {
    "ours": ours,
    "sae_lens": sae_lens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
}

if __name__ == "__main__":
    main()
