"""Stage probe_sae: a linear probe on the latents of one sparse autoencoder at one point."""

from sklearn.preprocessing import MaxAbsScaler

from pipeline import paths
from pipeline.activations.store import ActivationStore
from pipeline.cli import run_stage
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.fit import fit_probe
from pipeline.probes.pooling import pooled
from pipeline.probes.results import read_task, score, write_probe, write_scores
from pipeline.sae.model import Sae


def main(point: str, variant: str) -> None:
    params = read("probe", ProbeParams)
    seed = read("seed", int)
    train, test = read_task(params, seed)
    store = ActivationStore(paths.ACTIVATIONS, point)
    sae = Sae.load(paths.SAES / point / variant)
    probe = fit_probe(
        pooled(store, train.prompt_ids, params.poolings, sae.encode),
        MaxAbsScaler(),
        train,
        c_grid=params.c_grid,
        folds=params.folds,
        seed=seed,
        name=f"sae at {point}",
        solver="newton-cg",
    )
    write_probe(paths.PROBES / "sae" / point / variant, probe)
    features = pooled(store, test.prompt_ids, params.poolings, sae.encode)
    table = score(probe, features, test, point=point, arm=f"sae_{variant}", seed=seed)
    write_scores(paths.SCORES / "sae" / point / f"{variant}.parquet", [table])


if __name__ == "__main__":
    run_stage(main, __doc__, "point", "variant")
