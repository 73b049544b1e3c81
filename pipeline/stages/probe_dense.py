"""Stage probe_dense: a linear probe on the raw activations at one point, and one on shuffled labels."""

from sklearn.preprocessing import StandardScaler

from pipeline import paths
from pipeline.activations.store import ActivationStore
from pipeline.cli import run_stage
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.fit import fit_probe, shuffled
from pipeline.probes.pooling import pooled
from pipeline.probes.results import read_task, score, write_probe, write_scores


def main(point: str) -> None:
    params = read("probe", ProbeParams)
    seed = read("seed", int)
    train, test = read_task(params, seed)
    store = ActivationStore(paths.ACTIVATIONS, point)
    train_features = pooled(store, train.prompt_ids, params.poolings)
    test_features = pooled(store, test.prompt_ids, params.poolings)

    tables = []
    for arm, labelled in (("dense", train), ("dense_shuffled", shuffled(train, seed))):
        probe = fit_probe(
            train_features,
            StandardScaler(),
            labelled,
            c_grid=params.c_grid,
            folds=params.folds,
            seed=seed,
            name=f"{arm} at {point}",
        )
        write_probe(paths.PROBES / "dense" / point / arm, probe)
        tables.append(score(probe, test_features, test, point=point, arm=arm, seed=seed))
    write_scores(paths.SCORES / "dense" / f"{point}.parquet", tables)


if __name__ == "__main__":
    run_stage(main, __doc__, "point")
