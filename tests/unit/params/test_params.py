"""params.yaml: everything wrong in it is one line that names the key, the value and what is allowed."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import dump_yaml, load_yaml, run_stage_error, working_in, write_params

from pipeline.params.root import check_params_file
from pipeline.params.sae import read_variant
from tools.stage_code import ROOT


def test_the_file_of_the_project_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_params_file()


def test_every_key_has_a_comment_on_its_line() -> None:
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if re.match(r"\s*(- |\w+:)", line) and not re.match(r"^\w+:$", line):
            assert "#" in line, line


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("filter.min_char", 3, r"unknown key 'filter.min_char', did you mean 'min_chars'\?"),
        ("bogus", 1, r"unknown key 'bogus' \(allowed here: seed, seeds, device, data,"),
        ("sae.variants.topk.depth", 1, r"unknown key 'sae.variants.topk.depth'.*width"),
        ("seed", "0", r"seed = '0' is not allowed: should be a valid integer"),
        ("filter.deduplicate", "yes", r"filter.deduplicate = 'yes' is not allowed: should be a valid boolean"),
        ("split.test_fraction", 1.5, r"split.test_fraction = 1.5 is not allowed: should be less than 1"),
        ("data.source", "ftp", r"data.source = 'ftp' is not allowed: should be 'sample', 'hub' or 'local'"),
        ("data.repo", "no-slash", r"data.repo = 'no-slash' is not allowed"),
        ("model.source", "big", r"model.source = 'big' is not allowed: should be 'tiny', 'hub' or 'local'"),
        ("extract.points", ["resid_pre.1"], r"extract.points.0 = 'resid_pre.1' .*resid_post, layer_delta"),
        ("extract.points", ["resid_post.40"], r"extract.points.0 = 'resid_post.40' .*4 layers, so a layer is 0..3"),
        ("extract.points", ["mlp_out.1", "mlp_out.1"], r"extract.points = .*should not name a point twice"),
        ("extract.points", ["resid_post.01"], r"extract.points.0 = 'resid_post.01' .*SITE.LAYER"),
        ("extract.points", [], r"extract.points = \[\] is not allowed"),
        ("extract.batch_tokens", 100, r"extract.batch_tokens = 100 .*at least extract.max_tokens, 768"),
        ("extract.device", "cpu", r"unknown key 'extract.device', it is now 'device' \(allowed here: points,"),
        ("device", "gpu", r"device = 'gpu' is not allowed: String should match pattern"),
        ("extract.dtype", "int8", r"extract.dtype = 'int8' is not allowed: should be 'float16'"),
        ("sae.k", 5000, r"sae.k = 5000 is not allowed: should be at most sae.width, 1024"),
        ("sae.width", 8, r"sae.k = 16 is not allowed: should be at most sae.width, 8"),
        ("sae.variants.topk.k", 5000, r"sae.variants.topk.k = 5000 .*at most sae.width, 1024"),
        ("sae.variants.topk.width", 8, r"sae.variants.topk.width = 8 .*at least sae.k, 16"),
        (
            "sae.variants.topk",
            {"architecture": "topk", "width": 8, "k": 9},
            r"sae.variants.topk.k = 9 .*at most sae.variants.topk.width, 8",
        ),
        ("sae.variants.topk", {"k": 8}, r"key 'sae.variants.topk.architecture' is missing: add it"),
        ("sae.variants.topk", None, r"sae.variants.topk = None is not allowed: should be a valid dictionary"),
        ("sae.variants.topk.k", None, r"sae.variants.topk.k = None is not allowed: should be a valid integer"),
        ("sae.k", None, r"sae.k = None is not allowed: should be a valid integer"),
        ("sae.lr", -1.0, r"sae.lr = -1.0 is not allowed: should be greater than 0$"),
        (
            "sae.variants.topk.architecture",
            "vq",
            r"sae.variants.topk.architecture = 'vq' .*'matryoshka' or 'pretrained'",
        ),
        ("sae.variants.topk.lr", -1.0, r"sae.variants.topk.lr = -1.0 is not allowed: should be greater than 0"),
        ("sae.train", ["nope"], r"sae.train = \['nope'\] .*sae.variants: batch_topk, topk"),
        ("sae.target", 2, None),
        ("probe.target", 6, r"probe.target = 6 is not allowed: data.clusters names clusters 0..5"),
        ("probe.folds", 1, r"probe.folds = 1 is not allowed: should be greater than or equal to 2"),
        ("evaluate.confidence", 95, r"evaluate.confidence = 95 is not allowed: should be less than 1"),
    ],
)
def test_a_wrong_value_is_one_line(key: str, value: Any, expected: str | None, tmp_path: Path) -> None:
    write_params(tmp_path, {key: value})
    if expected is None:  # allowed as long as the SAE is trained on all prompts
        write_params(tmp_path, {key: value, "sae.train_on": "target"})
        expected = r"sae.target = 2 is not allowed: with sae.train_on = target it must equal probe.target = 3"
    line = run_stage_error("filter", tmp_path)
    assert re.match(r"params.yaml: " + expected, line), line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"width": 1024, "k": 16, "lr": None, "patience": 3}),
        ({"sae.width": 64, "sae.k": 4}, {"width": 64, "k": 4, "lr": None, "patience": 3}),
        ({"sae.k": 4, "sae.variants.topk.k": 8}, {"width": 1024, "k": 8}),
        ({"sae.lr": 0.1, "sae.variants.topk.lr": None}, {"lr": None}),
        ({"sae.variants.topk.patience": None}, {"patience": None}),
        ({"sae.variants.relu.k": 8}, {"k": 16}),
        # shared values that do not go together harm no variant that overrides one of them, nor one trained elsewhere
        (
            {
                "sae.k": 100,
                "sae.width": 64,
                "sae.variants": {
                    "topk": {"architecture": "topk", "width": 128},
                    "theirs": {"architecture": "pretrained", "path": "x", "sha256": "0" * 64},
                },
                "sae.train": ["topk"],
            },
            {"k": 100, "width": 128},
        ),
    ],
    ids=str,
)
def test_a_variant_has_the_shared_values_that_it_does_not_override(
    changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    write_params(tmp_path, changes)
    with working_in(tmp_path):
        checked, alone = check_params_file().sae.variant("topk"), read_variant("topk")
    assert checked == alone
    assert checked.model_dump() | expected | {"architecture": "topk"} == checked.model_dump()


def test_a_variant_is_read_whatever_another_says(tmp_path: Path) -> None:
    write_params(tmp_path, {"sae.variants.relu": "nonsense"})
    with working_in(tmp_path):
        assert read_variant("topk").k == 16


def test_a_missing_key_is_one_line(tmp_path: Path) -> None:
    write_params(tmp_path, {})
    params = load_yaml(tmp_path / "params.yaml")
    del params["split"]["shingle_chars"]
    dump_yaml(tmp_path / "params.yaml", params)
    assert run_stage_error("filter", tmp_path) == "params.yaml: key 'split.shingle_chars' is missing: add it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [1", "params.yaml is not valid YAML"), ("", "params.yaml holds no keys"), (None, "params.yaml is not in")],
)
def test_a_damaged_or_missing_file_is_one_line(text: str | None, expected: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    assert run_stage_error("filter", tmp_path).startswith(expected)
