"""Stage probe_text: the classifiers that read no activations, TF-IDF and prompt length."""

from functools import partial

from sklearn.preprocessing import StandardScaler

from pipeline import paths
from pipeline.cli import run_stage
from pipeline.params.base import read
from pipeline.params.probe import ProbeParams
from pipeline.probes.fit import fit_probe
from pipeline.probes.results import read_task, score, write_probe, write_scores
from pipeline.probes.text import length_features, terms_of, tfidf


def main() -> None:
    params = read("probe", ProbeParams)
    seed = read("seed", int)
    train, test = read_task(params, seed)
    fit = partial(fit_probe, train=train, c_grid=params.c_grid, folds=params.folds, seed=seed)

    words = fit({"none": train.prompts}, tfidf(), name="tfidf", solver="newton-cg", slow_prepare=True)
    write_probe(paths.PROBES / "text" / "tfidf", words, terms_of(words.pipeline["prepare"]))
    length = fit({"none": length_features(train.prompts)}, StandardScaler(), name="length")
    write_probe(paths.PROBES / "text" / "length", length)
    write_scores(
        paths.SCORES / "text.parquet",
        [
            score(words, {"none": test.prompts}, test, point="text", arm="tfidf", seed=seed),
            score(length, {"none": length_features(test.prompts)}, test, point="text", arm="length", seed=seed),
        ],
    )


if __name__ == "__main__":
    run_stage(main, __doc__)
