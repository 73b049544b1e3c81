"""Sparse autoencoders: they learn a sparse dictionary, keep to their sparsity, and load in SAELens."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_saes import ACTS, LATENTS, WIDTH, sae_of
from small_saes import ARCHITECTURES as SAVED_AS
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.sae.architectures import ARCHITECTURES
from pipeline.sae.architectures.base import Memory
from pipeline.sae.architectures.selection import top_latents
from pipeline.sae.architectures.topk import BatchTopK, TopK
from pipeline.sae.data import Activations
from pipeline.sae.metrics import measure
from pipeline.sae.model import Sae
from pipeline.sae.train import train_sae
from tools.stage_code import ROOT

D, FEATURES, ACTIVE = 32, 64, 3


def dictionary_data(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sums of 3 of 64 directions with positive strengths, off centre and not of unit scale, and the directions."""
    generator = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=generator), dim=1)
    offset = 3 * torch.randn(D, generator=generator)
    generator.manual_seed(seed)
    chosen = torch.rand(tokens, FEATURES, generator=generator).topk(ACTIVE, dim=1).indices
    strengths = torch.zeros(tokens, FEATURES).scatter(1, chosen, 1 + torch.rand(tokens, ACTIVE, generator=generator))
    return 5 * strengths @ directions + offset, directions


TRAIN, DIRECTIONS = dictionary_data(20_000)
HELD_OUT, _ = dictionary_data(4_000, seed=1)


# mean max cosine similarity to the dictionary that each reaches with the budget below, less a little
RECOVERED = {"relu": 0.8, "gated": 0.97, "jump_relu": 0.93, "topk": 0.98, "batch_topk": 0.96, "matryoshka": 0.92}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name == "topk" else pytest.mark.slow) for name in RECOVERED],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(name: str) -> Sae:
    return train_sae(TRAIN, architecture=name, width=128, k=ACTIVE, lr=2e-3, batch_size=512, epochs=40, patience=None)


def test_every_architecture_has_a_figure_here() -> None:
    assert RECOVERED.keys() == ARCHITECTURES.keys()


def test_it_recovers_the_dictionary_that_made_the_data(name: str, trained: Sae) -> None:
    cosine = torch.nn.functional.normalize(trained.tensors["W_dec"], dim=1) @ DIRECTIONS.T
    assert cosine.max(dim=0).values.mean() > RECOVERED[name]


def test_held_out_activations_are_reconstructed_with_the_asked_sparsity(name: str, trained: Sae) -> None:
    measured = measure(trained, HELD_OUT)
    metrics = measured.metrics
    assert metrics["fvu"] < (1 if name == "relu" else 0.2), "L1 shrinks what it keeps"
    assert metrics["l0"] == pytest.approx(ACTIVE, rel=0.15)
    latents = trained.encode(HELD_OUT)
    error = (HELD_OUT - trained.decode(latents)).square().sum()
    assert metrics["fvu"] == pytest.approx((error / (HELD_OUT - HELD_OUT.mean(0)).square().sum()).item(), rel=1e-4)
    assert metrics["dead_fraction"] == pytest.approx(((latents > 0).sum(0) == 0).float().mean().item())
    assert metrics["l0_quantiles"]["0.5"] == (latents > 0).sum(1).double().median()
    histogram = measured.density_histogram()
    assert sum(count for _, count, _ in histogram) == 128
    assert histogram[0][:2] == ("dead", round(128 * metrics["dead_fraction"]))
    density = (latents > 0).double().mean(0)
    assert (
        histogram[-1][1] == (density >= 10**-0.25).sum()
        and histogram[-2][1] == ((density >= 10**-0.5) & (density < 10**-0.25)).sum()
    )
    quantiles = measured.l0_quantiles()
    assert quantiles[0] == (0, (latents > 0).sum(1).min().item()) and quantiles[-1] == (
        100,
        (latents > 0).sum(1).max().item(),
    )


def test_what_is_saved_is_what_was_trained(trained: Sae, tmp_path: Path) -> None:
    trained.save(tmp_path)
    again = Sae.load(tmp_path)
    assert torch.equal(trained.encode(HELD_OUT), again.encode(HELD_OUT))
    assert again.tensors["W_dec"].norm(dim=1).sub(1).abs().max() < 1e-5


def test_saelens_loads_it_and_agrees(trained: Sae, tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is in the test extra")
    trained.save(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    ours, others = trained.encode(HELD_OUT), theirs.encode(HELD_OUT)
    assert (ours - others).norm() / ours.norm() < 1e-5
    torch.testing.assert_close(trained.decode(ours), theirs.decode(others), rtol=1e-4, atol=1e-3)


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (
        train_sae(TRAIN[:2000], architecture="batch_topk", width=64, k=4, epochs=2, batch_size=256, seed=seed)
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert not torch.equal(first.tensors["W_enc"], other.tensors["W_enc"])


def test_half_precision_activations_train_as_well() -> None:
    sae = train_sae(TRAIN.half(), architecture="topk", width=128, k=ACTIVE, lr=2e-3, batch_size=512, epochs=5)
    assert measure(sae, HELD_OUT.half()).metrics["fvu"] < 0.3


@pytest.mark.parametrize("leading", [(), (1,), (0,), (300,), (3, 100), (2, 3, 50), (0, 4), (4, 0)], ids=str)
@pytest.mark.parametrize("architecture", SAVED_AS)
def test_tokens_are_encoded_one_by_one_whatever_axes_they_stand_on(architecture: str, leading: tuple[int, ...]) -> None:
    sae = sae_of(architecture)
    x = ACTS[: math.prod(leading)].reshape(*leading, WIDTH)
    for given in (x, x.half(), x.bfloat16(), x.double()):
        latents = sae.encode(given)
        expected = torch.cat([torch.empty(0, LATENTS), *(sae.encode(token[None]) for token in given.view(-1, WIDTH))])
        assert latents.shape == (*leading, LATENTS) and latents.dtype == torch.float32
        torch.testing.assert_close(latents.view(-1, LATENTS), expected)
        assert torch.equal(latents > 0, (expected > 0).view(latents.shape))
        decoded = sae.decode(latents)
        assert decoded.shape == x.shape and decoded.dtype == torch.float32
        by_hand = latents @ sae.tensors["W_dec"] + sae.tensors["b_dec"]
        torch.testing.assert_close(decoded, by_hand)
    if architecture == "topk":
        assert ((sae.encode(x) > 0).sum(dim=-1) <= 3).all()


@pytest.mark.parametrize("leading", [(), (0,), (5,), (2, 5)], ids=str)
def test_latents_of_which_none_or_few_are_active_are_decoded(leading: tuple[int, ...]) -> None:
    sae = sae_of("standard")
    latents = torch.zeros(*leading, LATENTS)
    assert torch.equal(sae.decode(latents), sae.tensors["b_dec"].expand(*leading, WIDTH))
    if latents.numel():
        latents.view(-1)[4] = 2
        torch.testing.assert_close(sae.decode(latents), latents @ sae.tensors["W_dec"] + sae.tensors["b_dec"])
        torch.testing.assert_close(sae.decode(latents.half()), sae.decode(latents))


@pytest.mark.parametrize("architecture", SAVED_AS)
def test_nan_and_infinity_come_out_as_such(architecture: str) -> None:
    sae = sae_of(architecture)
    for value in (float("nan"), float("inf")):
        x = ACTS[:4].clone()
        x[2, 1] = value
        finite = sae.decode(sae.encode(x)).isfinite().all(dim=1)
        assert finite[[0, 1, 3]].all() and not finite[2]


def test_an_sae_says_what_it_is_and_moves() -> None:
    sae = sae_of("topk")
    assert repr(sae) == "Sae(topk, k 3, width 6, latents 10, device cpu)"
    assert repr(sae_of("gated")) == "Sae(gated, width 6, latents 10, device cpu)"
    assert sae.to("cpu") is sae and sae.device == torch.device("cpu")
    with pytest.raises(UserError, match="is on cpu and the SAE on meta: move one"):
        sae_of("gated").to("meta").encode(ACTS)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    sae = sae_of("gated")
    sae.tensors["b_mag"] = sae.tensors["b_gate"]
    sae.save(str(tmp_path))
    again = Sae.load(str(tmp_path))
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in sae.tensors.items())


def small_weights(rule: TopK, d: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = rule.initial(d, generator)
    weights["W_enc"] = weights["W_enc"] + 0.1 * torch.randn(rule.width, d, generator=generator)
    weights["b_enc"] = 0.1 * torch.randn(rule.width, generator=generator)
    weights["b_dec"] = 0.1 * torch.randn(d, generator=generator)
    return {name: weight.to(dtype).requires_grad_() for name, weight in weights.items()}


def dense_loss(rule: TopK, weights: dict[str, Tensor], x: Tensor, memory: Memory, window: int) -> Tensor:
    """The loss of a batch as the papers write it, with dense latents and PyTorch's own gradients."""
    pre = (x - weights["b_dec"]) @ weights["W_enc"].T + weights["b_enc"]
    if isinstance(rule, BatchTopK):
        kept = torch.zeros(pre.numel(), dtype=torch.bool)
        kept[pre.flatten().topk(rule.k * len(x)).indices] = True
        kept = kept.view_as(pre)
    else:
        kept = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(rule.k, dim=1).indices, True)
    latents = pre.relu() * kept
    full = x - latents @ weights["W_dec"] - weights["b_dec"]
    parts = (16, 8, 4, 2, 1) if rule.__class__.__name__ == "Matryoshka" else (1,)
    bounds = [rule.width // part for part in parts if rule.width // part]
    losses = [
        (x - latents[:, :bound] @ weights["W_dec"][:bound] - weights["b_dec"]).square().sum(1).mean() / rule.variance
        for bound in bounds
    ]
    loss = torch.stack(losses).mean()
    dead = memory.last_fired > window
    if dead.any():
        k = min(x.shape[1] // 2, int(dead.sum()))
        among = pre.masked_fill(~dead, -torch.inf)
        aux = torch.zeros_like(pre).scatter(1, among.topk(k, dim=1).indices, 1) * pre.relu()
        missed = (full.detach() - aux @ weights["W_dec"]).square().sum(1).mean()
        loss = loss + rule.aux_coefficient * missed / full.detach().square().sum(1).mean()
    return loss


@pytest.mark.parametrize("dead", [0, 5], ids=["no latent dead", "5 dead"])
@pytest.mark.parametrize("name", ["topk", "batch_topk", "matryoshka"])
def test_sparse_gradients_are_those_of_the_dense_formula(name: str, dead: int) -> None:
    rule = ARCHITECTURES[name](48, 4, aux_coefficient=1 / 32, variance=16.0, steps=10)
    assert isinstance(rule, TopK)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        x = torch.randn(20, 16, generator=torch.Generator().manual_seed(5)).to(dtype)
        sparse, dense = small_weights(rule, 16, dtype), small_weights(rule, 16, dtype)
        memory = Memory(torch.zeros(48))
        memory.last_fired[:dead] = 100
        loss = rule.step(sparse, x, memory, 50).loss
        loss.backward()
        expected = dense_loss(rule, dense, x, memory, 50)
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
        for weight in sparse:
            ours, theirs = sparse[weight].grad, dense[weight].grad
            assert ours is not None and theirs is not None
            assert (ours - theirs).norm() <= tolerance * theirs.norm(), weight
        if dead:
            gradient = sparse["W_enc"].grad
            assert gradient is not None
            assert gradient[:dead].abs().sum() > 0, "AuxK reaches the encoder of dead latents"


def test_gradcheck_of_the_loss() -> None:
    rule = TopK(12, 3, aux_coefficient=1 / 32, variance=6.0, steps=10)
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    memory = Memory(torch.zeros(12))
    weights = small_weights(rule, 6)
    names = list(weights)

    def loss(*values: Tensor) -> Tensor:
        return rule.step(dict(zip(names, values, strict=True)), x, memory, 50).loss

    assert torch.autograd.gradcheck(loss, tuple(weights.values()))


@pytest.mark.parametrize(("width", "k"), [(6144, 32), (100, 7), (1024, 60)])
def test_the_largest_latents_are_found_in_groups(width: int, k: int) -> None:
    pre = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(top_latents(pre, k).sort(1).values, pre.topk(k, dim=1).indices.sort(1).values)
    # in half precision there are ties, and what is not positive does not count
    half = pre.bfloat16()
    found = half.gather(1, top_latents(half, k)).relu().sort(1).values
    assert torch.equal(found, half.topk(k, dim=1).values.relu().sort(1).values)


def test_the_batch_topk_threshold_gives_exactly_k_on_average() -> None:
    rule = BatchTopK(50, 4, aux_coefficient=0, variance=1.0, steps=1)
    x = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))
    weights = {name: weight.detach() for name, weight in small_weights(rule, 20, torch.float32).items()}
    threshold = rule.thresholds(weights, iter(x.split(64)), len(x))
    pre = (x - weights["b_dec"]) @ weights["W_enc"].T + weights["b_enc"]
    assert (pre > threshold).sum() == pytest.approx(4 * len(pre), abs=2)


def test_training_in_blocks_sees_every_token_once_an_epoch_and_learns_as_well() -> None:
    blocks = [lambda part=part: part for part in TRAIN.split(1500)]
    size = 4 * TRAIN.shape[1] * 1500 * 3 / 1e6
    data = Activations(blocks, memory_mb=size)
    whole = Activations.of(TRAIN)
    assert data.tokens == whole.tokens == len(TRAIN)
    assert data.scale == pytest.approx(whole.scale) and data.variance == pytest.approx(whole.variance)
    epoch = torch.cat(list(data.batches(500, 0, 0)))
    assert len(epoch) == len(TRAIN)
    expected = torch.cat(list(whole.in_order()))
    torch.testing.assert_close(epoch.sum(1).sort().values, expected.sum(1).sort().values)
    assert not torch.equal(epoch, torch.cat(list(data.batches(500, 1, 0))))
    sae = train_sae(data, architecture="topk", width=128, k=ACTIVE, lr=2e-3, batch_size=512, epochs=15)
    assert measure(sae, HELD_OUT).metrics["fvu"] < 0.1


def test_blocks_of_any_size_give_full_batches() -> None:
    blocks = [lambda part=part: part for part in TRAIN[:1000].split([30, 500, 7, 3, 400, 60])]
    data = Activations(blocks, memory_mb=1e-6)
    for epoch in range(5):
        sizes = [len(batch) for batch in data.batches(64, epoch, 0)]
        assert sizes == [64] * data.steps(64) == [64] * 15


def test_tokens_with_outlying_norms_are_left_out() -> None:
    loud = TRAIN[:1000].clone()
    loud[::100] *= 1e4
    assert Activations.of(loud).tokens == 990


def test_it_ends_when_held_out_prompts_gain_no_more() -> None:
    steps: list[int] = []
    train_sae(
        TRAIN[:400],
        held_out=HELD_OUT,
        architecture="topk",
        width=256,
        k=8,
        lr=1e-2,
        batch_size=100,
        epochs=200,
        patience=2,
        on_step=lambda step, *_: steps.append(step),
    )
    assert len(steps) < 200 * 4 and len(steps) % 4 == 0


def test_divergence_and_empty_input_are_told() -> None:
    with pytest.raises(UserError, match="no activations"):
        train_sae(TRAIN[:1], architecture="topk", width=8, k=2)
    with pytest.raises(UserError, match=r"diverged at step \d+ with learning rate \S+e\+\d\d: lower the variant's lr"):
        train_sae(TRAIN[:1000], architecture="topk", width=8, k=2, lr=1e30, batch_size=100)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    train_sae(TRAIN[:500], architecture="topk", width=8, k=2, epochs=1).save(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"sae_weights\.safetensors is damaged"):
        Sae.load(tmp_path)


@pytest.mark.slow
def test_memory_mb_bounds_the_peak_memory_of_training(tmp_path: Path) -> None:
    for number in range(8):
        save_file({"x": torch.randn(400_000, 64).half()}, tmp_path / f"{number}.safetensors")  # 51 MB each

    def peak_mb(memory_mb: float | None) -> float:
        script = f"""
from functools import partial
from pathlib import Path
from safetensors import safe_open
from pipeline.sae.data import Activations
from pipeline.sae.train import train_sae
def load(path):
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("x")
files = sorted(Path({str(tmp_path)!r}).glob("*.safetensors"))
data = Activations([partial(load, file) for file in files], memory_mb={memory_mb})
train_sae(data, architecture="topk", width=32, k=4, batch_size=20_000, epochs=1)
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)  # ru_maxrss would be that of the parent, if that is more
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        return float(done.stdout)

    assert peak_mb(None) - peak_mb(60) > 250, "of 410 MB, 51 are in memory, and what it takes to read them"
