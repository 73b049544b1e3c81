"""Fits of the probes: what scikit-learn's would be, everything chosen inside the folds, and weights that say it all."""

from functools import partial

import numpy as np
import pytest
from probe_data import HOW, full_task, made
from scipy import sparse
from scipy.special import expit
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from pipeline.core.errors import UserError
from pipeline.judging.settings import SHUFFLED, Balancing
from pipeline.probes.arms.k_sparse import Components
from pipeline.probes.fit import Fitting, fit
from pipeline.probes.logistic import Features, logistic
from pipeline.probes.models import BestColumns, Model
from pipeline.probes.task import Task, tasks


@pytest.mark.parametrize("width", [1, 30, 300])
@pytest.mark.parametrize("kind", ["dense", "of each fold", "sparse", "as good as dense"])
def test_all_folds_and_strengths_at_once_are_what_scikit_learn_fits_one_by_one(width: int, kind: str) -> None:
    rng = np.random.default_rng(width)
    labels = rng.random(200) < 0.4
    matrix = rng.normal(size=(200, width)) + labels[:, None] * rng.normal(size=width) / np.sqrt(width)
    matrix *= rng.random((200, width)) < {"sparse": 0.02, "as good as dense": 0.3}.get(kind, 1)
    matrix[:, 0] += 1
    rows = rng.random((2, 200)) < 0.7
    offset, scale = rng.normal(scale=0.1, size=(2, width)), rng.uniform(0.5, 2, size=(2, width))
    if kind in ("sparse", "as good as dense"):
        offset = np.zeros_like(offset)
    of_folds = np.stack([matrix, matrix[:, ::-1]]) if kind == "of each fold" else np.stack([matrix, matrix])
    given = {"dense": matrix, "of each fold": of_folds}.get(kind, sparse.csr_array(matrix))
    grid = [0.01, 1.0, 10.0]
    coefficient, intercept = logistic(Features(given, folds=2), labels, rows, offset, scale, grid, 1e-7)
    for fold, inside in enumerate(rows):
        for number, c in enumerate(grid):
            scaled = (of_folds[fold][inside] - offset[fold]) / scale[fold]
            expected = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(scaled, labels[inside])
            assert coefficient[fold, number] == pytest.approx(expected.coef_[0], abs=1e-3)
            assert intercept[fold, number] == pytest.approx(expected.intercept_[0], abs=1e-3)


def test_columns_that_are_much_alike_are_fitted_with_hardly_any_penalty() -> None:
    """Their bound on the Hessian has no Cholesky factors in single precision."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 100))
    labels = rng.random(400) < expit(matrix[:, 0])
    everyone, zeros = np.ones((1, 400), dtype=bool), np.zeros((1, 100))
    coefficient, _ = logistic(Features(matrix, 1), labels, everyone, zeros, zeros + 1, [1e6], 1e-6)
    expected = LogisticRegression(C=1e6, tol=1e-10, max_iter=10_000).fit(matrix, labels)
    assert matrix @ coefficient[0, 0] == pytest.approx(matrix @ expected.coef_[0], abs=0.02)


def test_columns_far_from_zero_are_fitted_in_single_precision_too() -> None:
    """A column with a mean 10,000 times its spread, as some neurons of language models have."""
    prompts, features = made(600, 0)
    far = features.astype(np.float32) + np.float32(10_000) * (np.arange(8) == 0)
    near, shifted = (
        fit({"mean": each}, Model(StandardScaler), full_task(prompts), prompts.groups, HOW)[None]
        for each in (features.astype(np.float32), far)
    )
    assert shifted.cv_auroc == pytest.approx(near.cv_auroc, abs=0.002) and near.cv_auroc > 0.7


def test_weights_are_all_that_is_needed_to_score_a_prompt() -> None:
    prompts, _ = made(300, 0)
    x = np.random.default_rng(2).normal(size=(300, 20)) + prompts.labels[:, None]

    def classifier(model: Model, k: int | None) -> tuple[dict[str, np.ndarray], np.ndarray]:
        fitted = fit({"mean": x}, model, full_task(prompts), prompts.groups, HOW)[k].fitted
        return fitted.weights(), fitted.probabilities(x)

    def score(w: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
        return expit((features - w["offset"]) / w["scale"] @ w["coefficient"] + w["intercept"])

    weights, scores = classifier(Model(StandardScaler), None)
    assert score(weights, x) == pytest.approx(scores)
    weights, scores = classifier(Model(StandardScaler, partial(BestColumns, 8), sizes=(4, 8)), 4)
    assert score(weights, x[:, weights["columns"]]) == pytest.approx(scores)
    weights, scores = classifier(Model(StandardScaler, partial(Components, 8), sizes=(4, 8)), 4)
    components = (x - weights["input_offset"]) / weights["input_scale"] @ weights["components"].T
    assert score(weights, components) == pytest.approx(scores)


def test_shuffled_labels_give_chance_and_true_ones_do_not() -> None:
    prompts, features = made(1200, 0)

    def auroc(task: Task) -> float:
        chosen = fit({"mean": features}, Model(StandardScaler), task, prompts.groups, HOW)[None]
        scores = chosen.fitted.probabilities(features)
        return float(reference.roc_auc_score(prompts.labels[prompts.test], scores[prompts.test]))

    assert auroc(full_task(prompts)) > 0.7
    every = tasks(prompts, Balancing("even", 5), scarce=[], draws=2, noise=[], folds=3)
    permuted = [task for task in every if task.setting == SHUFFLED]
    assert len({task.labels.tobytes() for task in permuted}) == 5
    assert np.mean([auroc(task) for task in permuted]) == pytest.approx(0.5, abs=0.1)


def test_pooling_is_chosen_by_cross_validation() -> None:
    prompts, features = made(600, 0)
    noise = np.random.default_rng(5).normal(size=features.shape)
    views = {"max": noise, "mean": features, "last": noise}
    chosen = fit(views, Model(StandardScaler), full_task(prompts), prompts.groups, HOW)[None]
    assert chosen.pooling == "mean" and chosen.c in HOW.c_grid


@pytest.mark.parametrize("as_sparse", [False, True])
def test_a_path_of_fits_gives_what_one_fit_after_the_other_gives(as_sparse: bool) -> None:
    """Beside a plain grid search of scikit-learn's over a pipeline."""
    prompts, narrow = made(800, 0)
    features = np.hstack([narrow, np.random.default_rng(1).normal(size=(800, 700))])  # beyond logistic.NARROW
    matrix = sparse.csr_array(features * (np.abs(features) > 0.5)) if as_sparse else features
    task = full_task(prompts)
    grid = [0.0001, 0.01, 1.0, 10.0, 100.0]
    splits = StratifiedGroupKFold(3, shuffle=True, random_state=0).split(
        task.labels, task.labels, prompts.groups[task.train]
    )
    pipeline = make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=10_000, tol=1e-8))
    search = GridSearchCV(pipeline, {"logisticregression__C": grid}, scoring="roc_auc", cv=list(splits))
    search.fit(matrix[task.train], task.labels)
    chosen = fit({"mean": matrix}, Model(MaxAbsScaler), task, prompts.groups, Fitting(grid, 3, 0))[None]
    assert chosen.cv_auroc == pytest.approx(search.best_score_, abs=0.002)
    best = pipeline.set_params(logisticregression__C=chosen.c).fit(matrix[task.train], task.labels)
    ours, theirs = chosen.fitted.probabilities(matrix), best.predict_proba(matrix)[:, 1]
    assert ours == pytest.approx(theirs, abs=0.01)


def test_k_features_are_chosen_inside_each_fold() -> None:
    """Of 5,000 columns of noise some tell train's labels well by chance; cross-validation must not be taken in."""
    prompts, _ = made(120, 0, test=0.2)
    noise = np.random.default_rng(3).normal(size=(120, 5000))
    task = full_task(prompts)
    model = Model(StandardScaler, partial(BestColumns, 8), sizes=(1, 8))
    found = fit({"mean": noise}, model, task, prompts.groups, HOW)
    assert set(found) == {1, 8}
    assert all(0.3 < chosen.cv_auroc < 0.7 for chosen in found.values())
    best = BestColumns(8).fit(noise[task.train], task.labels).columns_
    outside = reference.roc_auc_score(task.labels, noise[task.train][:, best[0]])
    assert max(outside, 1 - outside) > 0.72, "chosen before the folds are made it would look good"


def test_k_of_1_is_the_single_best_column() -> None:
    prompts, features = made(600, 0)
    model = Model(StandardScaler, partial(BestColumns, 2), sizes=(1, 2, 512))
    found = fit({"mean": features[:, ::-1]}, model, full_task(prompts), prompts.groups, HOW)
    assert set(found) == {1, 2}, "as many as the features have"
    assert len(found[1].fitted.coefficient) == 1 and found[1].cv_auroc > 0.7


def test_folds_need_enough_groups() -> None:
    prompts, features = made(80, 0)
    task = full_task(prompts)
    with pytest.raises(UserError, match=r"probe\.folds = 3"):
        fit({"mean": features}, Model(StandardScaler), task, np.array(["same"] * 80), HOW)
