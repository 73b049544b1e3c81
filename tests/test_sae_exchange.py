"""SAEs come from and go to SAELens and the hub's layout."""

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
    sample_rows,
    save_small_model,
    working_in,
    write_csv,
    write_params,
)
from stage_code import ROOT

from pipeline.errors import UserError
from pipeline.files import sha256_of
from pipeline.sae.export import export
from pipeline.sae.model import Sae

POINT = "resid_post.1"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained SAE."""
    folder = tmp_path_factory.mktemp("work")
    save_small_model(folder / "lm")
    write_csv(folder / "prompts.csv", sample_rows(300))
    write_params(folder, SMALL)
    for stage in ("download", "filter", "split", "fetch_model", "extract"):
        run_stage(stage, folder)
    run_stage("train_sae", folder, POINT, "batch_topk")
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


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize(("kind", "options"), [("Standard", {}), ("Gated", {}), ("JumpReLU", {}), ("TopK", {"k": 5})])
def test_saes_of_saelens_encode_and_decode_alike_here(
    kind: str, options: dict[str, int], apply_b_dec_to_input: bool, tmp_path: Path
) -> None:
    theirs = from_sae_lens(tmp_path, kind, apply_b_dec_to_input=apply_b_dec_to_input, **options)
    if kind == "TopK":
        theirs.cfg.rescale_acts_by_decoder_norm = False
        theirs.save_model(tmp_path)
    ours = Sae.load(tmp_path)
    x = torch.randn(50, 64)
    expected = theirs.encode(x)
    assert (expected > 0).any()
    assert (ours.encode(x) - expected).norm() <= 1e-5 * expected.norm()
    torch.testing.assert_close(ours.decode(expected), theirs.decode(expected), rtol=1e-5, atol=1e-5)


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
    saved, given = Sae.load(work / f"models/sae/{POINT}/theirs"), Sae.load(work / "theirs")
    assert all(torch.equal(saved.tensors[name], given.tensors[name]) for name in given.tensors)
    from_sae_lens(work / "wide", "JumpReLU", width=80)
    pretrained |= {"path": "wide", "sha256": sha256_of(work / "wide/sae_weights.safetensors")}
    write_params(work, SMALL | {"sae.variants.theirs": pretrained, "sae.train": ["theirs"]})
    assert run_stage_error("train_sae", work, POINT, "theirs").startswith("wide is for activations of width 80")


def test_a_pretrained_variant_without_its_hash_is_one_line(work: Path) -> None:
    write_params(work, SMALL | {"sae.variants.theirs": {"architecture": "pretrained", "path": "theirs"}})
    line = run_stage_error("filter", work)
    assert line.startswith("params.yaml: sae.variants.theirs = ")
    assert line.endswith("is not allowed: architecture pretrained also needs sha256")
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


def test_the_export_command_tells_what_is_missing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.sae.export", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "error: models/sae holds no SAE: run 'dvc repro' to train one\n"
