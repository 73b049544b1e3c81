"""Classifiers that are not linear: what they learn, what they contain, that nothing leaks, weights that say it all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probe_data import HOW, full_task, made
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from stores import written_store

from pipeline.probes.arms import attention, mlp, random_relu, rbf
from pipeline.probes.arms.base import AnyArm, Scored
from pipeline.probes.arms.random_relu import RandomRelu, random_directions
from pipeline.probes.fit import Fitting, fit, folds_of
from pipeline.probes.inputs import Tokens
from pipeline.probes.models import Model
from pipeline.probes.task import Task
from pipeline.prompts.table import Prompts

ARMS: dict[str, AnyArm] = {arm.name: arm for of in (attention, mlp, random_relu, rbf) for arm in of.ARMS}
ON_TOKENS, POOLED = ("attention", "softmax", "multi-max"), ("mlp", "random_relu", "rbf")
TOKENS = 11  # a prompt, that count
PROMPTS, _ = made(400, 0)
TASK = full_task(PROMPTS)


def views_of(x: np.ndarray, folder: Path | None = None, prompts: Prompts = PROMPTS) -> dict[str, Any]:
    """What the stages compute of token activations x (prompts, tokens, width)."""
    mean = x.mean(axis=1)
    views = {"dense": {"mean": mean}, "random_relu": RandomRelu({"mean": mean}, prompts.train, 256, seed=0)}
    if folder is None:
        return views
    first = np.zeros_like(x[:, :1])  # the first token of a prompt does not count
    rows = torch.from_numpy(np.concatenate([first, x], axis=1).reshape(-1, x.shape[2]))
    token_ids = [np.ones(1 + x.shape[1], dtype=np.int64) for _ in x]
    store = written_store(folder, "resid_post.0", token_ids, rows.split(100 * (1 + x.shape[1])), special=99)
    return views | {"tokens": Tokens(store, [f"p{number:02d}" for number in range(len(x))])}


def fitted(name: str, views: Any, task: Task = TASK, how: Fitting = HOW) -> Scored:
    (scored,) = ARMS[name].scores(views, task, PROMPTS.groups, how)
    return scored


def auroc(probabilities: np.ndarray) -> float:
    return float(roc_auc_score(PROMPTS.labels[PROMPTS.test], probabilities[PROMPTS.test]))


def linear(x: np.ndarray) -> Any:
    return fit({"mean": x.mean(axis=1)}, Model(StandardScaler), TASK, PROMPTS.groups, HOW)[None]


def ring() -> np.ndarray:
    """One token a prompt, far from the centre or near it: a line tells nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1, 6))
    x[:, 0, :2] *= np.where(PROMPTS.labels, 3, 0.7)[:, None] / np.linalg.norm(x[:, 0, :2], axis=1, keepdims=True)
    return x.astype(np.float32)


def one_telling_token() -> np.ndarray:
    """Ten tokens of noise, and one that is marked, whose sign is the label: their mean says little."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, TOKENS, 6)).astype(np.float32)
    x[:, 3, 0] = 8
    x[:, 3, 1] = 2 * np.where(PROMPTS.labels, 1, -1)
    return x


def telling_mean() -> np.ndarray:
    """Every token says a little, which is all that there is to know."""
    x = np.random.default_rng(0).normal(size=(400, TOKENS, 30)).astype(np.float32)
    x[..., :5] += 0.1 * PROMPTS.labels[:, None, None]
    return x


@pytest.mark.parametrize("name", POOLED)
def test_a_ring_is_learned(name: str) -> None:
    x = ring()
    assert auroc(linear(x).fitted.probabilities(x.mean(axis=1))) < 0.65
    found = fitted(name, views_of(x))
    assert auroc(found.probabilities) > 0.93 and found.choices["cv_auroc"] > 0.93


@pytest.mark.parametrize("name", ["attention", "multi-max"])
def test_the_token_that_tells_is_found(name: str, tmp_path: Path) -> None:
    x = one_telling_token()
    by_mean = auroc(linear(x).fitted.probabilities(x.mean(axis=1)))
    assert auroc(fitted(name, views_of(x, tmp_path)).probabilities) > 0.97 > by_mean + 0.1


@pytest.mark.parametrize("name", [*ON_TOKENS, "mlp"])
def test_it_is_as_good_as_the_mean_pooled_probe_that_it_contains(name: str, tmp_path: Path) -> None:
    x = telling_mean()
    found = fitted(name, views_of(x, tmp_path))
    assert found.choices["cv_auroc"] >= linear(x).cv_auroc - 0.001


@pytest.mark.parametrize("name", [*ON_TOKENS, "mlp"])
def test_without_a_step_it_is_the_mean_pooled_probe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.probes.descent.STEPS", (0,))
    x = telling_mean() + 1000 * np.eye(30, dtype=np.float32)[7]  # a column far from zero, as some models have
    how = Fitting([0.01], 3, 0)
    found = fitted(name, views_of(x, tmp_path), how=how)
    expected = fit({"mean": x.mean(axis=1)}, Model(StandardScaler), TASK, PROMPTS.groups, how)[None]
    assert found.probabilities == pytest.approx(expected.fitted.probabilities(x.mean(axis=1)), abs=0.005)
    assert found.out_of_fold == pytest.approx(expected.out_of_fold, abs=0.02)


def by_hand(name: str, scored: Scored, x: np.ndarray) -> np.ndarray:
    """The logits of prompts x (n, tokens, width), of the weights alone."""
    w = scored.weights
    if name == "rbf":
        z = (x.mean(axis=1) - w["input_offset"]) / w["input_scale"]
        distance = np.square(z[:, None] - w["landmarks"]).sum(axis=2)
        features = np.exp(-w["gamma"] * distance) @ w["mixing"]
    elif name == "random_relu":
        directions, biases = random_directions(x.shape[2], len(w["coefficient"]), scored.choices["seed"])
        z = (x.mean(axis=1) - w["input_offset"]) / w["input_scale"]
        features = np.maximum(z @ directions + biases, 0)
    if name in ("rbf", "random_relu"):
        return (features - w["offset"]) / w["scale"] @ w["coefficient"] + w["intercept"]
    z = ((x.mean(axis=1, keepdims=True) if name == "mlp" else x) - w["offset"]) / w["scale"] @ w["directions"]
    said, others = z[..., 0], z[..., 1:]
    if name == "attention":
        return (softmax(others[..., 0], axis=1) * said).sum(axis=1) + w["intercept"]
    if name == "softmax":
        return (softmax(w["sharpness"] * said, axis=1) * said).sum(axis=1) + w["intercept"]
    if name == "multi-max":
        return said.mean(axis=1) + others.max(axis=1) @ w["gains"] + w["intercept"]
    return said[:, 0] + np.maximum(others[:, 0] + w["bias"], 0) @ w["output"] + w["intercept"]


@pytest.mark.parametrize("name", ARMS)
def test_weights_are_all_that_is_needed_to_score_a_prompt(name: str, tmp_path: Path) -> None:
    x = one_telling_token()
    found = fitted(name, views_of(x, tmp_path))
    assert expit(by_hand(name, found, x.astype(np.float64))) == pytest.approx(found.probabilities, abs=1e-3)
    assert {"C", "cv_auroc", "train_prompts"} <= found.choices.keys()
    assert all(weight.flags.c_contiguous for weight in found.weights.values()), "or they cannot be written"


@pytest.mark.parametrize("name", ARMS)
def test_other_prompts_than_those_of_the_task_change_nothing(name: str, tmp_path: Path) -> None:
    x = one_telling_token()
    others = np.setdiff1d(np.arange(400), TASK.train)
    changed = x.copy()
    changed[others[::2]] = 5 - changed[others[::2]]
    of_task = replace(PROMPTS, sides=np.where(np.isin(np.arange(400), TASK.train), "train", "test"))
    one, other = (
        fitted(name, views_of(each, tmp_path / str(number), of_task)) for number, each in enumerate((x, changed))
    )
    assert one.out_of_fold is not None
    np.testing.assert_array_equal(one.out_of_fold, other.out_of_fold)
    same = np.setdiff1d(np.arange(400), others[::2])
    np.testing.assert_allclose(one.probabilities[same], other.probabilities[same], atol=1e-6)
    assert one.choices == other.choices


@pytest.mark.parametrize("name", ARMS)
def test_labels_of_noise_are_not_learned_out_of_fold(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(400, TOKENS, 40)).astype(np.float32)
    found = fitted(name, views_of(x, tmp_path))
    assert 0.35 < found.choices["cv_auroc"] < 0.65
    assert roc_auc_score(TASK.labels, found.out_of_fold) < 0.65


@pytest.mark.parametrize("name", ARMS)
def test_the_labels_of_a_fold_change_nothing_in_what_is_said_of_it(name: str, tmp_path: Path) -> None:
    """With nothing to choose from but steps, whose choice is taken away too."""
    x = one_telling_token()
    splits = folds_of(TASK, PROMPTS.groups, HOW)
    task = replace(TASK, splits=splits)
    flipped = TASK.labels.copy()
    flipped[splits[0][1]] = ~flipped[splits[0][1]]
    views, how = views_of(x, tmp_path), Fitting([0.01], 3, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.probes.descent.STEPS", (20,))
        patch.setattr("pipeline.probes.arms.rbf.GAMMAS", (1.0,))
        one, other = (fitted(name, views, each, how) for each in (task, replace(task, labels=flipped)))
    assert one.out_of_fold is not None and other.out_of_fold is not None
    outside = splits[0][1]
    np.testing.assert_array_equal(one.out_of_fold[outside], other.out_of_fold[outside])
    assert not np.array_equal(one.out_of_fold, other.out_of_fold)


def test_what_is_fitted_twice_is_the_same(tmp_path: Path) -> None:
    views = views_of(one_telling_token(), tmp_path)
    for name in ("multi-max", "mlp"):
        one, other = fitted(name, views), fitted(name, views)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize("damage", [lambda x: x, lambda x: np.zeros_like(x)], ids=["usual", "nothing to learn"])
def test_all_are_finite(damage: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    views = views_of(damage(one_telling_token()), tmp_path)
    for name in ARMS:
        assert np.isfinite(fitted(name, views).probabilities).all()
