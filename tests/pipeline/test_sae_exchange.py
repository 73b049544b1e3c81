"""SAEs come from and go to SAELens and the hub's layout."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    SMALL,
    run_stage,
    run_stage_error,
    working_in,
    write_params,
)
from safetensors.torch import load_file, save_file

from pipeline.core.errors import UserError
from pipeline.core.files import sha256_of
from pipeline.sae.model import Sae
from tools.export import export
from tools.stage_code import ROOT

POINT = "resid_post.1"


@pytest.fixture(scope="module")
def work(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained SAE."""
    folder = tmp_path_factory.mktemp("work") / "run"
    shutil.copytree(small_run, folder)
    return folder


def from_sae_lens(folder: Path, kind: str, width: int = 64, **options: Any) -> Any:
    """An SAE with random weights, made and saved by SAELens."""
    sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is in the test extra")
    torch.manual_seed(0)
    config = getattr(sae_lens, f"{kind}SAEConfig")(d_in=width, d_sae=96, **options)
    sae = getattr(sae_lens, f"{kind}SAE")(config)
    for weights in sae.parameters():
        weights.data = 0.3 * torch.randn_like(weights)
    sae.save_model(folder)
    return sae


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Standard", {}),
    ("Gated", {}),
    ("JumpReLU", {}),
    ("TopK", {"k": 5, "rescale_acts_by_decoder_norm": False}),
    ("TopK", {"k": 5, "rescale_acts_by_decoder_norm": True}),  # as SAELens trains them
]


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
def test_saes_of_saelens_encode_and_decode_alike_here(
    kind: str, options: dict[str, Any], apply_b_dec_to_input: bool, tmp_path: Path
) -> None:
    theirs = from_sae_lens(tmp_path, kind, apply_b_dec_to_input=apply_b_dec_to_input, **options)
    ours = Sae.load(tmp_path)
    x = torch.randn(50, 64)
    expected = theirs.encode(x)
    assert (expected > 0).any()
    assert (ours.encode(x) - expected).norm() <= 1e-5 * expected.norm()
    torch.testing.assert_close(ours.decode(expected), theirs.decode(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.encode(x.view(5, 10, 64)), theirs.encode(x.view(5, 10, 64)), rtol=1e-4, atol=1e-4)


def test_an_sae_of_saelens_can_be_a_variant(work: Path) -> None:
    from_sae_lens(work / "theirs", "JumpReLU")
    pretrained = {"architecture": "pretrained", "path": "theirs", "sha256": "0" * 64}
    write_params(work, SMALL | {"sae.variants.theirs": pretrained, "sae.train": ["theirs"]})
    line = run_stage_error("train_sae", work, POINT, "theirs")
    right = sha256_of(work / "theirs/sae_weights.safetensors")
    assert line.endswith(f"if that file is meant, set it to {right}")
    pretrained["sha256"] = right
    write_params(work, SMALL | {"sae.variants.theirs": pretrained, "sae.train": ["theirs"]})
    run_stage("train_sae", work, POINT, "theirs")
    run_stage("measure_sae", work, POINT, "theirs")
    saved, given = Sae.load(work / f"models/sae/{POINT}/theirs"), Sae.load(work / "theirs")
    assert all(torch.equal(saved.tensors[name], given.tensors[name]) for name in given.tensors)
    from_sae_lens(work / "wide", "JumpReLU", width=80)
    pretrained |= {"path": "wide", "sha256": sha256_of(work / "wide/sae_weights.safetensors")}
    write_params(work, SMALL | {"sae.variants.theirs": pretrained, "sae.train": ["theirs"]})
    assert run_stage_error("train_sae", work, POINT, "theirs").startswith("wide is for activations of width 80")


def test_a_pretrained_variant_without_its_files_says_which_and_nothing_of_dvc(work: Path) -> None:
    (work / "broken").mkdir()
    pretrained = {"architecture": "pretrained", "path": "broken", "sha256": "0" * 64}
    write_params(work, SMALL | {"sae.variants.theirs": pretrained, "sae.train": ["theirs"]})
    line = run_stage_error("train_sae", work, POINT, "theirs")
    assert line.startswith("params.yaml: sae.variants.theirs.path: broken/cfg.json is missing: give a folder with ")
    from_sae_lens(work / "broken", "JumpReLU")
    tensors = load_file(work / "broken/sae_weights.safetensors")
    tensors["W_dec"][3, 3] = float("nan")
    save_file(tensors, work / "broken/sae_weights.safetensors")
    line = run_stage_error("train_sae", work, POINT, "theirs")
    assert line.startswith("params.yaml: sae.variants.theirs.path: broken: W_dec holds NaN: ")
    write_params(work, SMALL)


def test_a_pretrained_variant_without_its_hash_is_one_line(work: Path) -> None:
    write_params(work, SMALL | {"sae.variants.theirs": {"architecture": "pretrained", "path": "theirs"}})
    line = run_stage_error("filter", work)
    assert line == "params.yaml: key 'sae.variants.theirs.sha256' is missing: a pretrained SAE needs it"
    write_params(work, SMALL)


def test_an_export_loads_in_saelens_and_has_a_card(work: Path, tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is in the test extra")
    target = tmp_path / "repo"
    with working_in(work):
        assert f"{POINT}/batch_topk" in export(target, "cc-by-nc-4.0")
        with pytest.raises(UserError, match="is there already"):
            export(target, "cc-by-nc-4.0")
    theirs = sae_lens.SAE.load_from_disk(str(target / POINT / "batch_topk"), device="cpu")
    ours = Sae.load(work / f"models/sae/{POINT}/batch_topk")
    x = torch.randn(20, 64)
    torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-5, atol=1e-5)
    card = (target / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: saelens\n") and f"| {POINT}/batch_topk | jumprelu | 64 |" in card


@pytest.mark.parametrize("name", ["file", "file/below", "\0", "x" * 300, "/dev/null/x", "models"])
def test_a_folder_that_cannot_be_made_is_told(work: Path, name: str) -> None:
    (work / "file").write_text("mine")
    with working_in(work), pytest.raises(UserError, match=r": choose another (one|folder)$"):
        export(Path(name), "mit")
    assert (work / "file").read_text() == "mine"


def test_a_licence_is_a_name(work: Path, tmp_path: Path) -> None:
    for license in ("", "mit\ntags: [x]", "mit: x", "a b"):
        with working_in(work), pytest.raises(UserError, match="is not allowed: give the name of one"):
            export(tmp_path / "repo", license)
    assert not (tmp_path / "repo").exists()


def test_a_card_leaves_out_what_was_not_defined_and_needs_metrics(work: Path, tmp_path: Path) -> None:
    file = work / f"metrics/sae/{POINT}/batch_topk.json"
    good = file.read_text()
    metrics = json.loads(good)
    metrics["held_out"]["fvu"] = metrics["fidelity"] = None
    file.write_text(json.dumps(metrics))
    with working_in(work):
        export(tmp_path / "repo", "mit")
    assert "|  |" in (tmp_path / "repo/README.md").read_text()
    for content in ("[]", "{}", '{"held_out": 3, "fidelity": {}}'):
        file.write_text(content)
        with working_in(work), pytest.raises(UserError, match="does not hold the metrics of an SAE"):
            export(tmp_path / "other", "mit")
    file.write_text(good)
    assert not (tmp_path / "other").exists()


def test_the_export_command_tells_what_is_missing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tools.export", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "error: models/sae holds no SAE: run 'dvc repro' to make it\n"
