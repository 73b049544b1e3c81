"""What other codes leave unexplained with as many coefficients as a sparse autoencoder has active latents."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import OrthogonalMatchingPursuit
from small_saes import ACTS, WIDTH, sae_of
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.sae.metrics import measure
from pipeline.sae.model import Sae
from pipeline.sae.sparse_codes import other_codes
from pipeline.sae.train import train_sae

D, FEATURES, ACTIVE = 32, 96, 3


def rows(tokens: int, seed: int, *, sparse: bool) -> Tensor:
    """Sums of 3 of 96 directions, or of the same 3 for all tokens; off centre."""
    generator = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=generator), dim=1)
    generator.manual_seed(seed)
    if sparse:
        chosen = torch.rand(tokens, FEATURES, generator=generator).topk(ACTIVE, dim=1).indices
        strengths = 1 + torch.rand(tokens, ACTIVE, generator=generator)
    else:
        chosen = torch.arange(ACTIVE).expand(tokens, -1)
        strengths = torch.randn(tokens, ACTIVE, generator=generator) * torch.tensor([3.0, 2.0, 1.0])
    return torch.zeros(tokens, FEATURES).scatter(1, chosen, strengths) @ directions + 2.0


def trained(acts: Tensor) -> Sae:
    return train_sae(acts, architecture="topk", width=128, k=ACTIVE, batch_size=256, epochs=12, lr=3e-3, seed=0)


def test_few_components_are_better_where_all_activations_lie_in_few_dimensions() -> None:
    train, test = rows(8000, 0, sparse=False), rows(500, 1, sparse=False)
    found = other_codes(trained(train), train, test)
    assert (found["tokens"], found["k"]) == (500, ACTIVE)
    assert found["fvu_pca"] < 1e-4 < found["fvu_sae"]


def test_an_autoencoder_is_better_where_there_are_more_directions_than_dimensions() -> None:
    train, test = rows(16_000, 0, sparse=True), rows(500, 1, sparse=True)
    sae = trained(train)
    found = other_codes(sae, train, test)
    assert found["fvu_sae"] < found["fvu_pca"] / 2
    assert found["fvu_matching_pursuit"] < found["fvu_pca"] / 2
    assert found["fvu_sae"] == pytest.approx(measure(sae, test).metrics["fvu"], rel=1e-5)


def test_matching_pursuit_and_components_equal_scikit_learns() -> None:
    sae = sae_of("topk")
    found = other_codes(sae, ACTS[:200], ACTS[200:].half())
    acts, b_dec = ACTS[200:].half().double().numpy(), sae.tensors["b_dec"].double().numpy()
    variance = ((acts - acts.mean(0)) ** 2).sum()
    atoms = torch.nn.functional.normalize(sae.tensors["W_dec"].double(), dim=1).T.numpy()
    pursuit = OrthogonalMatchingPursuit(n_nonzero_coefs=found["k"], fit_intercept=False).fit(atoms, (acts - b_dec).T)
    left = (acts - b_dec).T - atoms @ pursuit.coef_.T
    assert found["fvu_matching_pursuit"] == pytest.approx((left**2).sum() / variance, rel=1e-3)
    coefficients = PCA(WIDTH).fit(ACTS[:200].numpy()).transform(acts)
    smallest = np.sort(coefficients**2, axis=1)[:, : WIDTH - found["k"]]
    assert found["fvu_pca"] == pytest.approx(smallest.sum() / variance, rel=1e-3)


def test_equal_directions_and_none_do_no_harm() -> None:
    tensors = dict(sae_of("topk").tensors)
    tensors["W_dec"] = tensors["W_dec"].clone()
    tensors["W_dec"][1] = tensors["W_dec"][0]
    tensors["W_dec"][2] = 0
    found = other_codes(Sae("topk", tensors, 3), ACTS, ACTS[:50])
    assert 0 <= found["fvu_matching_pursuit"] < 1
    silent = dict(tensors) | {"b_enc": torch.full_like(tensors["b_enc"], -1e6)}
    assert other_codes(Sae("topk", silent, 3), ACTS, ACTS[:50])["k"] == 1
    with pytest.raises(UserError, match="no activations to compare codes on"):
        other_codes(Sae("topk", tensors, 3), ACTS, ACTS[:0])
