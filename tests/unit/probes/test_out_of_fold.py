"""Logits of training prompts by fits that did not see them, and a grid of C that is as wide as it has to be."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from probe_data import HOW, full_task, made
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from pipeline.probes.fit import HIGHEST_C, Chosen, Fitting, fit, folds_of
from pipeline.probes.models import BestColumns, Model

L2 = partial(LogisticRegression, solver="newton-cholesky", tol=1e-10)
L1 = partial(LogisticRegression, solver="liblinear", l1_ratio=1.0, tol=1e-6, max_iter=10_000, random_state=0)


@pytest.mark.parametrize(
    ("model", "by_hand", "k", "is_sparse"),
    [
        (Model(StandardScaler), lambda c: make_pipeline(StandardScaler(), L2(C=c)), None, False),
        (Model(MaxAbsScaler), lambda c: make_pipeline(MaxAbsScaler(), L2(C=c)), None, True),
        (Model(MaxAbsScaler, l1=True), lambda c: make_pipeline(MaxAbsScaler(), L1(C=c)), None, True),
        (
            Model(StandardScaler, partial(BestColumns, 4), sizes=(2, 4)),
            lambda c: make_pipeline(BestColumns(2), StandardScaler(), L2(C=c)),
            2,
            False,
        ),
    ],
    ids=["dense", "sparse", "l1", "k columns"],
)
def test_out_of_fold_logits_are_those_of_a_refit_by_hand_without_the_fold(
    model: Model, by_hand: Any, k: int | None, is_sparse: bool
) -> None:
    prompts, features = made(600, 0)
    features = features + 3
    matrix = sparse.csr_array(features * (features > 3)) if is_sparse else features
    task = full_task(prompts)
    chosen = fit({"mean": matrix}, model, task, prompts.groups, HOW)[k]
    assert chosen.out_of_fold.shape == task.labels.shape
    splits = folds_of(task, prompts.groups, HOW)
    assert np.sort(np.concatenate([outside for _, outside in splits])).tolist() == list(range(len(task.train)))
    train = matrix[task.train]
    for inside, outside in splits:
        refitted = by_hand(chosen.c).fit(train[inside], task.labels[inside])
        expected = refitted.decision_function(train[outside])
        assert chosen.out_of_fold[outside] == pytest.approx(expected, abs=0.02), "with intercept, so folds compare"


def test_other_prompts_than_those_of_the_task_are_not_looked_at() -> None:
    prompts, features = made(600, 0)
    task = full_task(prompts)
    others = np.setdiff1d(np.arange(600), task.train)
    spoilt = features.copy()
    spoilt[others] = np.nan
    found = [fit({"mean": each}, Model(StandardScaler), task, prompts.groups, HOW)[None] for each in (features, spoilt)]
    np.testing.assert_array_equal(found[0].out_of_fold, found[1].out_of_fold)


def chosen_c(small: float, *c_grid: float) -> Chosen:
    """What is chosen where the column that tells is `small` beside one of noise, so that small C do not find it."""
    prompts, features = made(600, 0)
    noise = np.random.default_rng(1).normal(size=600)
    matrix = np.stack([small * features[:, 0], noise], axis=1)
    return fit({"mean": matrix}, Model(None), full_task(prompts), prompts.groups, Fitting(c_grid, 3, 0))[None]


def test_a_grid_whose_best_c_is_at_its_edge_is_widened_until_it_is_inside() -> None:
    wide = chosen_c(0.05, *(10.0**power for power in range(-6, 5)))
    upwards, downwards = chosen_c(0.05, 0.001, 0.01), chosen_c(50.0, 1e3, 1e4)
    for found in (wide, upwards):
        assert found.c_tried[0] < found.c < found.c_tried[1] and not found.c_at_edge
    assert upwards.c > 0.01 and upwards.c_tried[0] == 0.001
    assert upwards.cv_auroc == pytest.approx(wide.cv_auroc, abs=0.001)
    assert downwards.c_tried == (1e2, 1e4) and downwards.c == 1e3, "no better: it is not gone on with"


def test_a_c_that_should_be_larger_than_any_that_is_tried_is_told() -> None:
    found = chosen_c(1e-3, 10.0, 1000.0)
    assert found.c == HIGHEST_C == found.c_tried[1] and found.c_at_edge


def test_a_single_c_is_what_is_wanted() -> None:
    found = chosen_c(0.05, 0.001)
    assert found.c == 0.001 and found.c_tried == (0.001, 0.001) and not found.c_at_edge
