"""Models that cannot be used: each is one line and exit code 2, and nothing earlier is lost."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, run_stage, run_stage_error, sample_rows, save_small_model, write_csv, write_params
from safetensors.torch import load_file, save_file

from pipeline.lm.load import load_model
from pipeline.lm.lock import ModelLock


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts and a small local model, up to and including fetch_model."""
    folder = tmp_path_factory.mktemp("good")
    write_csv(folder / "prompts.csv", sample_rows(500)[::3])
    save_small_model(folder / "lm")
    write_params(folder, SMALL)
    for stage in ("download", "filter", "fetch_model"):
        run_stage(stage, folder)
    return folder


@pytest.fixture
def work(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "work")
    return tmp_path / "work"


def fetch_error(folder: Path) -> str:
    """The line of a fetch_model that must fail and leave the earlier lock as it was."""
    before = (folder / "models/model.lock.json").read_bytes()
    line = run_stage_error("fetch_model", folder)
    assert (folder / "models/model.lock.json").read_bytes() == before
    return line


def change_weights(path: Path, **changes: Any) -> None:
    tensors = load_file(path)
    for name, value in changes.items():
        tensors[name.replace("__", ".")][:] = value
    save_file(tensors, path, metadata={"format": "pt"})


def test_the_lock_names_every_file_that_is_read(work: Path) -> None:
    lock = ModelLock.read(work / "models/model.lock.json")
    assert (lock.source, lock.path, lock.architecture, lock.layers, lock.width) == ("local", "lm", "qwen3", 3, 64)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= lock.files.keys()
    assert lock.files["model.safetensors"]["size"] == (work / "lm/model.safetensors").stat().st_size


def test_a_missing_directory_config_tokenizer_or_weights(work: Path) -> None:
    (work / "lm/model.safetensors").rename(work / "weights")
    assert "lm has no .safetensors weights: convert the model" in fetch_error(work)
    (work / "weights").rename(work / "lm/model.safetensors")
    (work / "lm/tokenizer.json").rename(work / "tokenizer.json")
    (work / "lm/tokenizer_config.json").unlink()
    assert fetch_error(work).startswith("lm has no tokenizer that loads: add the tokenizer files")
    (work / "tokenizer.json").rename(work / "lm/tokenizer.json")
    (work / "lm/config.json").write_text("{}")
    assert "lm: config.json is missing or not a known transformer's" in fetch_error(work)
    shutil.rmtree(work / "lm")
    assert fetch_error(work) == "lm is not a directory: set model.path to a model in Hugging Face format"


def test_a_damaged_tokenizer(work: Path) -> None:
    (work / "lm/tokenizer.json").write_text("{")
    assert fetch_error(work).startswith("lm has no tokenizer that loads (")


def test_a_damaged_safetensors_file_is_found_by_fetch_and_by_extract(work: Path) -> None:
    weights = work / "lm/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "lm/model.safetensors is damaged" in fetch_error(work)
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    assert run_stage_error("extract", work).startswith("lm/model.safetensors differs from models/model.lock.json")
    weights.unlink()
    assert run_stage_error("extract", work).startswith("lm/model.safetensors is missing but stands in models/model.")


def test_weights_that_are_missing_or_of_another_shape_are_never_made_up(work: Path) -> None:
    path = work / "lm/model.safetensors"
    tensors = load_file(path)
    key = "model.layers.1.mlp.up_proj.weight"
    save_file({name: value for name, value in tensors.items() if name != key}, path, metadata={"format": "pt"})
    run_stage("fetch_model", work)
    assert "the weights lack layers.1.mlp.up_proj.weight (and 0 more)" in run_stage_error("extract", work)
    save_file(tensors | {key: torch.zeros(3, 3)}, path, metadata={"format": "pt"})
    run_stage("fetch_model", work)
    assert run_stage_error("extract", work).startswith("lm: the weights do not load")


def test_embeddings_saved_as_the_tied_head_alone_are_read_and_not_made_up(work: Path) -> None:
    path = work / "lm/model.safetensors"
    tensors = load_file(path)
    before = load_model(work / "lm", 2, "auto", "cpu").get_input_embeddings().weight
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    again = load_model(work / "lm", 2, "auto", "cpu")
    assert torch.equal(again.get_input_embeddings().weight, before)  # type: ignore[arg-type]
    assert not hasattr(again, "lm_head")


def test_a_layer_that_the_model_does_not_have(work: Path) -> None:
    write_params(work, SMALL | {"extract.points": ["resid_post.0", "mlp_out.40"]})
    line = run_stage_error("extract", work)
    assert line == (
        "params.yaml: extract.points.1 = 'mlp_out.40' is not allowed: the model has 3 layers, so a layer is 0..2"
    )


def test_nan_weights_name_the_prompt(work: Path) -> None:
    change_weights(work / "lm/model.safetensors", model__layers__1__mlp__down_proj__weight=float("nan"))
    run_stage("fetch_model", work)
    (work / "data/activations").mkdir()
    line = run_stage_error("extract", work)
    assert line.startswith("activation at resid_post.1 is NaN for prompt ")
    assert line.endswith("check the model's weights")


def test_a_model_without_a_chat_template(work: Path) -> None:
    (work / "lm/chat_template.jinja").unlink()
    run_stage("fetch_model", work)
    write_params(work, SMALL | {"extract.prompt_format": "chat"})
    assert run_stage_error("extract", work).startswith("the model's tokenizer has no chat template: set extract.")


def test_a_missing_gpu(work: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    write_params(work, SMALL | {"device": "cuda"})
    assert run_stage_error("extract", work) == "device = 'cuda' is not available here: set it to auto or cpu"


def test_only_the_wanted_blocks_are_built(work: Path) -> None:
    assert len(load_model(work / "lm", 2, "auto", "cpu").layers) == 2  # type: ignore[arg-type]


def test_stages_that_lack_their_inputs_say_which(tmp_path: Path) -> None:
    write_params(tmp_path, SMALL)
    assert run_stage_error("filter", tmp_path) == "data/raw/prompts.parquet is missing: run 'dvc repro' to make it"
    assert run_stage_error("extract", tmp_path) == "models/model.lock.json is missing: run 'dvc repro' to make it"
    assert "data/prompts.parquet is missing" in run_stage_error("split", tmp_path)
    assert "data/prompts.parquet is missing" in run_stage_error("evaluate", tmp_path)
    line = run_stage_error("train_sae", tmp_path, "resid_post.1", "nope")
    assert line.startswith("variant 'nope' is not in params.yaml: it has batch_topk, topk")


def test_too_few_prompts_of_a_class(work: Path) -> None:
    write_params(work, SMALL | {"probe.min_class_prompts": 5000})
    run_stage("split", work)
    assert "probe.min_class_prompts = 5000 of each are needed" in run_stage_error("probe_text", work)
    write_params(work, SMALL)
    assert run_stage_error("evaluate", work) == "data/scores/text.parquet is missing: run 'dvc repro' to make it"
