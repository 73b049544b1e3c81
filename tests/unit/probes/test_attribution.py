"""Contributions of tokens and features to a classifier's logit, and classifiers that cannot be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from pipeline.core.errors import UserError
from pipeline.probes.attribution import Linear

POOL = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "last": lambda x: x[-1]}


def write_probe(folder: Path, pooling: str, **arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    (folder / "probe.json").write_text(json.dumps({"pooling": pooling}))
    save_file(
        {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}, folder / "probe.safetensors"
    )
    return folder


@pytest.mark.parametrize("pooling", POOL)
@pytest.mark.parametrize("scaler", [StandardScaler, MaxAbsScaler])
def test_contributions_and_bias_sum_to_the_logit(pooling: str, scaler: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    prompts = [np.round(rng.normal(3, 2, (rng.integers(1, 9), 6)), 1).astype(np.float32) for _ in range(40)]
    features = np.array([POOL[pooling](prompt.astype(np.float64)) for prompt in prompts])
    fitted = make_pipeline(scaler(), LogisticRegression()).fit(features, np.arange(40) % 2)
    scaling, regression = fitted
    offset = scaling.mean_ if scaler is StandardScaler else np.zeros(6)
    arrays = {"coefficient": regression.coef_[0], "intercept": regression.intercept_}
    arrays |= {"offset": offset, "scale": scaling.scale_}
    linear = Linear.load(write_probe(tmp_path / "probe", pooling, **arrays), 6)
    for prompt, expected in zip(prompts, fitted.decision_function(features), strict=True):
        parts = linear.contributions(prompt)
        assert parts.shape == prompt.shape and parts.dtype == np.float64
        assert linear.logit(prompt) == pytest.approx(expected, abs=1e-9)
        for sums in (parts, linear.by_token(prompt), linear.by_feature(prompt)):
            assert sums.sum() + linear.bias == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(linear.by_token(prompt), parts.sum(1), atol=1e-12)
        np.testing.assert_allclose(linear.by_feature(prompt), parts.sum(0), atol=1e-12)


def test_who_gets_the_contribution() -> None:
    x_TF = np.array([[1.0, 0.0], [3.0, 2.0], [3.0, -1.0]])
    weight = np.array([2.0, 10.0])
    parts = {pooling: Linear(pooling, weight, 0.5).contributions(x_TF).tolist() for pooling in POOL}
    assert parts["mean"] == (x_TF * weight / 3).tolist()
    assert parts["max"] == [[0, 0], [6, 20], [0, 0]], "the first of two that reach the maximum"
    assert parts["last"] == [[0, 0], [0, 0], [6, -10]]


def test_a_probe_that_is_missing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    arrays = {"coefficient": np.ones(4), "intercept": np.zeros(1), "scale": np.ones(4), "offset": np.zeros(4)}
    good = write_probe(tmp_path / "good", "mean", **arrays)
    assert Linear.load(good, 4).logit(np.ones((2, 4))) == 4
    with pytest.raises(UserError, match="is for 4 features, not 5"):
        Linear.load(good, 5)
    with pytest.raises(UserError, match=r"probe\.json is missing"):
        Linear.load(tmp_path / "none", 4)
    chosen = write_probe(tmp_path / "few", "mean", **arrays, columns=np.arange(4))
    with pytest.raises(UserError, match="not of a linear classifier on pooled features"):
        Linear.load(chosen, 4)
    del arrays["scale"]
    for name, pooling in (("unscaled", "mean"), ("unpooled", "attention")):
        with pytest.raises(UserError, match="not of a linear classifier on pooled features"):
            Linear.load(write_probe(tmp_path / name, pooling, **arrays), 4)
    (good / "probe.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="missing or damaged"):
        Linear.load(good, 4)
