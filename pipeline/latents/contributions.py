"""Compute what each latent and each token of a prompt adds to the logits of the classifiers at a point."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.activations.store import ActivationStore
from pipeline.core.progress import progress
from pipeline.latents.firing import Firing
from pipeline.probes.attribution import Linear

LATENTS = 12  # of a prompt, those that add or take most


def contributions(
    store: ActivationStore, firing: Firing, of_sae: Linear, of_dense: Linear, wanted: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield a row of tables.CONTRIBUTIONS for each wanted prompt.

    The values of all tokens and the classifier's constant sum to its logit, and so do those of all latents.

    Args:
        wanted: bool (N), in the order of the store.
    """
    tokens = firing.tokens.tocsr()
    with progress(int(wanted.sum()), "contributions", "prompt") as bar:
        for first, end, rows in store.prompts():
            for prompt in range(first, end):
                if not wanted[prompt]:
                    continue
                span = np.arange(*store.offsets[prompt : prompt + 2])
                counted = firing.counted[span]
                latents = tokens[span[counted]]
                active = np.unique(latents.indices)
                # a latent that is active nowhere in the prompt adds nothing
                narrow = replace(of_sae, weight=of_sae.weight[active])
                x_TL = latents[:, active].toarray()
                dense_TD = rows[span[0] - store.offsets[first] : span[-1] + 1 - store.offsets[first]].float().numpy()
                by_latent = narrow.by_feature(x_TL)
                largest = np.argsort(-np.abs(by_latent), kind="stable")[:LATENTS]
                yield {
                    "prompt": prompt,
                    "sae_logit": narrow.logit(x_TL),
                    "dense_logit": of_dense.logit(dense_TD[counted]),
                    "sae_tokens": _spread(narrow.by_token(x_TL), counted),
                    "dense_tokens": _spread(of_dense.by_token(dense_TD[counted]), counted),
                    "latents": list(zip(active[largest].tolist(), by_latent[largest].tolist(), strict=True)),
                }
                bar.update()


def _spread(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return values of the counted tokens as values of all tokens, 0 at the others."""
    everywhere = np.zeros(len(counted))
    everywhere[counted] = values
    return everywhere
