"""Compare a sparse autoencoder with other codes of as many coefficients a token."""

from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.sae.check import check_tokens
from pipeline.sae.model import Sae

TOKENS = 2000  # that are coded: each takes k products with all directions
CHUNK = 128  # tokens coded at once
RIDGE = 1e-4  # keeps least squares on directions of norm 1 solvable where two are the same


@torch.no_grad()
def other_codes(sae: Sae, train_MD: Tensor, acts_ND: Tensor) -> dict[str, Any]:
    """Measure what other codes leave unexplained with as many coefficients a token as the SAE has active latents.

    Args:
        train_MD: activations that principal components are fitted on, M >= 1.
        acts_ND: other activations to code, N >= 1.

    Returns:
        tokens: N.
        k: coefficients a token: the mean number of active latents, rounded; at least 1, at most the width.
        fvu_sae: fraction of variance unexplained of the SAE (see `pipeline.sae.metrics`).
        fvu_pca: the same of the k largest of each token's coefficients on all principal components.
        fvu_matching_pursuit: the same of k of the decoder's directions, chosen by orthogonal matching pursuit.
    Raises: UserError when there are no activations, or when they do not fit the SAE.
    """
    for acts, name in ((train_MD, "train activations"), (acts_ND, "acts")):
        check_tokens(acts, name, sae.width)
        if not len(acts):
            raise UserError("there are no activations to compare codes on: give some")
    chunks = [rows.to(sae.device).float() for rows in acts_ND.split(CHUNK)]
    latents = [sae.encode(x) for x in chunks]
    l0 = sum(float((each > 0).sum()) for each in latents) / len(acts_ND)
    k = min(max(round(l0), 1), sae.width, sae.latents)
    b_dec, decoder = sae.tensors["b_dec"], sae.tensors["W_dec"]
    norms = decoder.norm(dim=1, keepdim=True)
    directions = decoder / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    mean, components = _principal_components(train_MD.to(sae.device))
    left = {
        "sae": [x - sae.decode(each) for x, each in zip(chunks, latents, strict=True)],
        "pca": [_without_largest((x - mean) @ components, k) for x in chunks],
        "matching_pursuit": [_without_pursued(x - b_dec, directions, k) for x in chunks],
    }
    centre = acts_ND.double().mean(dim=0).to(sae.device)
    variance = _energy([x - centre for x in chunks])
    unexplained = {
        f"fvu_{name}": _energy(parts) / variance if variance else float("nan") for name, parts in left.items()
    }
    return {"tokens": len(acts_ND), "k": k} | unexplained


def _energy(parts: list[Tensor]) -> float:
    return sum(float(part.double().square().sum()) for part in parts)


def _principal_components(acts_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d), and all principal components (d, d), a column each."""
    mean = acts_MD.double().mean(dim=0).float()
    second = torch.zeros(acts_MD.shape[1], acts_MD.shape[1], dtype=torch.float64, device=acts_MD.device)
    for rows in acts_MD.split(2048):
        centred = rows.float() - mean
        second += centred.T @ centred
    return mean, torch.linalg.eigh(second).eigenvectors.float()


def _without_largest(coefficients_BD: Tensor, k: int) -> Tensor:
    """Return each token's coefficients without the k largest."""
    largest = coefficients_BD.abs().topk(k, dim=1).indices
    return coefficients_BD.scatter(1, largest, 0.0)


def _without_pursued(x_BD: Tensor, directions_LD: Tensor, k: int) -> Tensor:
    """Return what orthogonal matching pursuit leaves of each token.

    The direction that is nearest to what is left is added k times. Each time all coefficients, of any sign, are fitted
    again by least squares (Pati, Rezaiifar & Krishnaprasad 1993).
    """
    left, chosen = x_BD, torch.empty(len(x_BD), 0, dtype=torch.int64, device=x_BD.device)
    for _ in range(k):
        nearness = (left @ directions_LD.T).abs().scatter(1, chosen, -1.0)
        chosen = torch.cat([chosen, nearness.argmax(dim=1, keepdim=True)], dim=1)
        used = directions_LD[chosen]
        gram = used @ used.mT + RIDGE * torch.eye(chosen.shape[1], device=x_BD.device)
        coefficients = torch.cholesky_solve(used @ x_BD[:, :, None], torch.linalg.cholesky(gram))
        left = x_BD - (coefficients.mT @ used)[:, 0]
    return left
