"""Sparse autoencoders: they learn a sparse dictionary, keep to their sparsity, and load in SAELens."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.sae.architectures import ARCHITECTURES, BatchTopK
from pipeline.sae.metrics import reconstruction_metrics
from pipeline.sae.model import Sae
from pipeline.sae.train import train_sae

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


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def trained(request: pytest.FixtureRequest) -> Sae:
    return train_sae(TRAIN, architecture=request.param, width=128, k=ACTIVE, lr=2e-3, batch_size=512, epochs=15)


def test_it_recovers_the_dictionary_that_made_the_data(trained: Sae) -> None:
    cosine = torch.nn.functional.normalize(trained.tensors["W_dec"], dim=1) @ DIRECTIONS.T
    assert cosine.max(dim=0).values.mean() > 0.9


def test_held_out_activations_are_reconstructed_with_the_asked_sparsity(trained: Sae) -> None:
    metrics = reconstruction_metrics(trained, HELD_OUT)
    assert metrics["fvu"] < 0.15
    assert metrics["l0"] == pytest.approx(ACTIVE, rel=0.1)
    error = (HELD_OUT - trained.decode(trained.encode(HELD_OUT))).square().sum()
    assert metrics["fvu"] == pytest.approx((error / (HELD_OUT - HELD_OUT.mean(0)).square().sum()).item(), rel=1e-4)


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
    assert reconstruction_metrics(sae, HELD_OUT.half())["fvu"] < 0.3


def test_the_batch_topk_threshold_gives_exactly_k_on_average() -> None:
    pre = torch.randn(1000, 50, generator=torch.Generator().manual_seed(0))
    threshold = BatchTopK(4).threshold(pre.split(64), len(pre))
    assert (pre > threshold).sum() == 4 * len(pre)


def test_divergence_and_empty_input_are_told() -> None:
    with pytest.raises(UserError, match="no activations"):
        train_sae(TRAIN[:1], architecture="topk", width=8, k=2)
    with pytest.raises(UserError, match=r"diverged at step 1 with learning rate 1e\+30: lower"):
        train_sae(TRAIN[:1000], architecture="topk", width=8, k=2, lr=1e30, batch_size=100)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    train_sae(TRAIN[:500], architecture="topk", width=8, k=2, epochs=1).save(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"sae_weights\.safetensors is missing or damaged"):
        Sae.load(tmp_path)
