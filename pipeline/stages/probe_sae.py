"""Stage probe_sae: fit the probes on the latents of one sparse autoencoder at one point, and their controls."""

from typing import Any

import numpy as np
from torch import Tensor

from pipeline.activations.pooling import pooled
from pipeline.activations.store import ActivationStore, sampled
from pipeline.core.errors import UserError
from pipeline.core.files import read_table, write_table
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.arms.of_sae import ARMS
from pipeline.probes.arms.random_relu import RandomRelu
from pipeline.probes.fit_arms import fit_arms
from pipeline.prompts.table import Prompts
from pipeline.sae.model import Sae
from pipeline.sae.untrained import untrained_like
from pipeline.stages import paths
from pipeline.stages.prompts import prompts_of_seeds
from pipeline.stages.run import run_stage

SAMPLE = 8192  # tokens on which the untrained SAE gets the L0 of the trained one


def main(point: str, variant: str) -> None:
    params = read("probe", ProbeParams)
    seeds = read("seeds", list[int])
    store = ActivationStore(paths.ACTIVATIONS, point)

    def views(prompts: Prompts) -> dict[str, Any]:
        folder = paths.sae(point, variant, prompts.seed, seeds)
        sae = Sae.load(folder)
        seen = set(read_table(folder / paths.TRAINED_ON)["prompt_id"].to_pylist())
        leaked = [prompts.ids[row] for row in np.flatnonzero(prompts.test) if prompts.ids[row] in seen]
        if leaked:
            raise UserError(
                f"the SAE in {folder} was trained on {len(leaked)} test prompts, such as {leaked[0]}: "
                "run 'dvc repro' to train it again"
            )
        train = {prompts.ids[row] for row in np.flatnonzero(prompts.train)}
        untrained = untrained_like(sae, store.read(sampled(store.rows_of(train), SAMPLE, prompts.seed)), prompts.seed)

        def of_tokens(x: Tensor) -> dict[str, Tensor]:
            latents = sae.encode(x)
            reconstruction = sae.decode(latents)
            return {
                "dense": x,
                "latents": latents,
                "untrained": untrained.encode(x),
                "reconstruction": reconstruction,
                "residual": x - reconstruction,
            }

        features = pooled(store, prompts.ids, params.poolings, of_tokens, sparse_views=("latents", "untrained"))
        random_relu = RandomRelu(features["dense"], prompts.train, sae.latents, prompts.seed)
        return features | {"random_relu": random_relu}

    folder = paths.probes(point, variant)
    table = fit_arms(
        ARMS, views, params, prompts_of_seeds(params.target, seeds), points=[point], variant=variant, folder=folder
    )
    write_table(paths.SCORES / "sae" / point / f"{variant}.parquet", table)


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
