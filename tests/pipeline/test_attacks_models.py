"""Model directories that attack or are odd: nothing of theirs runs, nothing outside is read, each fault is one line."""

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import run_stage, run_stage_error, working_in
from model_attacks import (
    INDEX,
    WEIGHTS,
    Change,
    config,
    fetch_error,
    instead,
    keys,
    make_good,
    several,
    sharded,
    socket_at,
    sparse,
    subfolder,
    text,
    without_layer_types,
)

from pipeline.core.errors import UserError
from pipeline.lm.load import describe, load_config, load_model, load_tokenizer, pick_device
from pipeline.lm.lock import ModelLock, hash_files
from pipeline.lm.tokens import tokenise
from pipeline.lm.view import viewed
from tools.stage_code import ROOT

NOT_KNOWN = "lm: config.json is missing or not a known transformer's ("
# what is done to a good model, and what fetch_model says of it
REFUSED_BY_FETCH: dict[str, tuple[Change, str]] = {
    # config.json, as a file
    "config is a list": (text("config.json", "[]"), "lm/config.json holds no keys"),
    "config is a directory": (instead("config.json", Path.mkdir), "lm/config.json is not a regular file"),
    "config is cut off": (text("config.json", '{"a": '), "lm/config.json is not JSON ("),
    "config is no UTF-8": (text("config.json", b'{"a": "\xff"}'), "lm/config.json is not JSON ("),
    "config is deep": (text("config.json", '{"a":' + "[" * 100_000), "lm/config.json is not JSON (too deeply nested"),
    "config has a long number": (text("config.json", '{"a": ' + "9" * 5000 + "}"), "lm/config.json is not JSON ("),
    "config is enormous": (sparse("config.json", 10**10), "lm/config.json has 10000000000 bytes"),
    "config is empty": (text("config.json", ""), "lm/config.json is not JSON ("),
    # its values
    "no model_type": (text("config.json", "{}"), NOT_KNOWN + "model_type = None"),
    "model_type is a list": (config(model_type=["qwen3"]), NOT_KNOWN + "model_type = ['qwen3']"),
    "model_type is unknown": (config(model_type="evil", auto_map={"AutoConfig": "code.Evil"}), "never run): check"),
    "two model_types": (text("config.json", '{"model_type": "qwen3", "model_type": "evil"}'), "model_type = 'evil'"),
    "escapes in model_type": (config(model_type="\x1b[31m\n" + "x" * 9999), r"model_type = '\x1b[31m\nxxx"),
    "width 0": (config(hidden_size=0), "lm/config.json: hidden_size = 0 is not an integer of 1 to 1000000"),
    "width below 0": (config(hidden_size=-64), "lm/config.json: hidden_size = -64 is not"),
    "width is a text": (config(hidden_size="64"), "hidden_size"),
    "width beyond memory": (config(hidden_size=10**12), "lm/config.json: hidden_size = 1000000000000 is not"),
    "width beyond the files": (
        config(hidden_size=10**6),
        "lm: config.json makes a model of at least 1091000064 weights",
    ),
    "hidden width beyond memory": (config(intermediate_size=10**12), "lm: config.json makes a model of at least"),
    "vocabulary beyond memory": (config(vocab_size=10**8), "lm: config.json makes a model of at least"),
    "vocabulary is null": (config(vocab_size=None), "vocab_size"),
    "layers 0": (without_layer_types(num_hidden_layers=0), "num_hidden_layers = 0 is not"),
    "layers below 0": (without_layer_types(num_hidden_layers=-1), "num_hidden_layers"),
    "layers huge": (config(num_hidden_layers=10**9), "num_hidden_layers"),
    "layers is a text": (config(num_hidden_layers="3"), "num_hidden_layers"),
    "layers is a truth value": (without_layer_types(num_hidden_layers=True), "num_hidden_layers"),
    "heads 0": (config(num_attention_heads=0), "lm: config.json"),
    "head width 0": (config(head_dim=0), "lm: config.json"),
    "positions 0": (config(max_position_embeddings=0), "max_position_embeddings = 0 is no number of tokens"),
    "positions below 0": (config(max_position_embeddings=-9), "max_position_embeddings = -9 is no number of tokens"),
    "positions is a text": (config(max_position_embeddings="x"), "max_position_embeddings"),
    "dtype is unknown": (config(dtype="float99"), "lm: config.json"),
    "activation is unknown": (config(hidden_act="evil"), "lm: config.json does not make a model (KeyError 'evil'"),
    "rope is nonsense": (config(rope_scaling="nonsense", rope_parameters="nonsense"), "lm: config.json"),
    "rope is unknown": (config(rope_parameters={"rope_type": "evil", "rope_theta": 1.0}), "lm: config.json"),
    "quantisation is a list": (config(quantization_config=[1]), "lm: config.json"),
    "quantisation has no method": (config(quantization_config={"bits": 4}), "quant_method"),
    "quantisation is unknown": (config(quantization_config={"quant_method": "evil"}), "unknown quant_method"),
    "layer_types is short": (config(layer_types=["full_attention"]), "layer_types"),
    "layer_types is unknown": (config(layer_types=["evil"] * 3), "layer_types"),
    "encoder-decoder": (config(model_type="t5"), "lm: t5 is an encoder-decoder: choose a decoder or an encoder"),
    "encoder-decoder, says a text": (config(is_encoder_decoder="yes"), "lm: "),
    "vision": (config(model_type="vit"), "lm: vit is not a text transformer: choose another model"),
    "a method's name": (config(get_text_config="x"), NOT_KNOWN),
    "text_config is a number": (config(text_config=5), NOT_KNOWN),
    # weights
    "weights are a pipe": (instead(WEIGHTS, os.mkfifo), "lm/model.safetensors is not a regular file"),
    "weights are a socket": (instead(WEIGHTS, socket_at), "lm/model.safetensors is not a regular file"),
    "weights are a device": (
        instead(WEIGHTS, lambda path: path.symlink_to("/dev/zero")),
        "lm/model.safetensors is not a regular file",
    ),
    "weights are a broken link": (instead(WEIGHTS, lambda path: path.symlink_to("nowhere")), "cannot be read (No such"),
    "weights are a circle": (
        instead(WEIGHTS, lambda path: path.symlink_to(path.name)),
        "lm/model.safetensors cannot be",
    ),
    "weights are empty": (text(WEIGHTS, b""), "lm/model.safetensors is damaged"),
    "weights are a pickle": (instead(WEIGHTS, lambda path: torch.save({}, path)), "lm/model.safetensors is damaged"),
    "index leads up": (sharded("../outside.safetensors"), "looks for 'model.norm.weight' in '../outside.safetensors'"),
    "index leads to a place": (
        sharded("/outside.safetensors"),
        "lm/model.safetensors.index.json: weight_map looks for",
    ),
    "index leads to a pickle": (sharded("pytorch_model.bin"), "in 'pytorch_model.bin', which is no .safetensors file"),
    "index leads nowhere": (sharded("gone.safetensors"), "in 'gone.safetensors', which is no .safetensors file"),
    "index leads here by a detour": (sharded("../lm/part.safetensors"), "in '../lm/part.safetensors', which is no"),
    "index leads to a number": (sharded(5), "in 5, which is no .safetensors file"),
    "index is a list": (text(INDEX, "[]"), f"lm/{INDEX} holds no keys"),
    "index maps nothing": (text(INDEX, "{}"), f"lm/{INDEX} has no weight_map"),
    # the directory
    "the directory is a file": (several(shutil.rmtree, Path.touch), "lm is not a directory"),
    "the directory is a pipe": (several(shutil.rmtree, os.mkfifo), "lm is not a directory"),
}
# what params.yaml may not name is said first: DVC would read it without end; the library says it, too
SAID_OF_PARAMS = {
    "weights are a pipe": "'lm' is not allowed: it holds 'model.safetensors', which is a named pipe, not a file",
    "weights are a socket": "'lm' is not allowed: it holds 'model.safetensors', which is a socket, not a file",
    "weights are a device": "'lm' is not allowed: it holds 'model.safetensors', which is a device, not a file",
    "weights are a circle": "'lm' is not allowed: it cannot be looked at: 'model.safetensors' in it (Too many levels",
    "the directory is a file": "'lm' is not allowed: it is a file, not a directory",
    "the directory is a pipe": "'lm' is not allowed: it is a named pipe, not a directory",
}
REFUSED_BY_EXTRACT: dict[str, tuple[Change, str]] = {
    "heads that do not divide": (config(num_attention_heads=3), "self_attn.o_proj.weight is (64, 64), and config.json"),
    "vocabulary of the config alone": (
        config(vocab_size=99),
        "embed_tokens.weight is (512, 64), and config.json makes",
    ),
    "a method that is not installed": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "lm: the weights do not load (",
    ),
}
ELSEWHERE = "/nonexistent/elsewhere"
# settings that name code, files or hosts: the model loads as if they were not there
IGNORED: dict[str, Change] = {
    "code of config, model and tokenizer": several(
        text("code.py", "raise SystemExit('it ran')"),
        config(auto_map={"AutoConfig": "code.A", "AutoModel": "code.A", "AutoModelForCausalLM": "code.A"}),
        keys("tokenizer_config.json", auto_map={"AutoTokenizer": ["code.A", "code.A"]}),
    ),
    "code of another repository": config(
        auto_map={"AutoConfig": "evil/repo--code.A", "AutoModel": "evil/repo--code.A"}
    ),
    "code that generates": several(
        subfolder("custom_generate"),
        text("custom_generate/generate.py", "raise SystemExit('it ran')"),
        keys("generation_config.json", custom_generate="."),
    ),
    "garbage that would steer generation": text("generation_config.json", "\xff["),
    "a processor": text("processor_config.json", '{"auto_map": {"AutoProcessor": "code.A"}}'),
    "an adapter": text(
        "adapter_config.json", json.dumps({"base_model_name_or_path": "evil/repo", "peft_type": "LORA"})
    ),
    "a pickle": text("pytorch_model.bin", b"cos\nsystem\n(S'false'\ntR."),
    "a pickle by name": config(transformers_weights="adapter_model.bin"),
    "weights by name": config(transformers_weights="../outside.safetensors"),
    "another config": several(
        config(configuration_files=["config.4.0.0.json"]),
        text("config.4.0.0.json", "{}"),
    ),
    "an attention kernel": config(attn_implementation="evil/kernel", _attn_implementation="evil/kernel:f"),
    "an attention kernel, internally": config(_attn_implementation_internal="evil/kernel"),
    "an experts kernel": config(experts_implementation="evil/kernel"),
    "kernels": config(use_kernels=True, kernel_config={"a": "evil/kernel"}, fusion_config={"evil": True}),
    "a name": config(_name_or_path="evil/repo", name_or_path=ELSEWHERE, _commit_hash="0" * 40),
    "architectures": config(architectures=["os.system", 5]),
    "files of a tokenizer": keys("tokenizer_config.json", tokenizer_file=ELSEWHERE, vocab_file=ELSEWHERE, spm_file="/"),
    "another tokenizer.json": keys("tokenizer_config.json", fast_tokenizer_files=["../tokenizer.4.0.json"]),
    "a vocabulary": keys("tokenizer_config.json", vocab=ELSEWHERE, merges=ELSEWHERE, init_inputs=[ELSEWHERE]),
    "files in the special tokens": keys("special_tokens_map.json", vocab_file=ELSEWHERE, tokenizer_file=ELSEWHERE),
    "an unknown tokenizer class": keys("tokenizer_config.json", tokenizer_class="os.system"),
    "a folder of templates": several(
        subfolder("additional_chat_templates"),
        text("additional_chat_templates/evil.jinja", "{% evil %}"),
    ),
    "GPTQ's own config": text("quantize_config.json", '{"model_file_base_name": "/x"}'),
    "weights in links to another folder": several(
        lambda folder: (folder / WEIGHTS).rename(folder.parent / "blob"),
        lambda folder: (folder / WEIGHTS).symlink_to("../blob"),
    ),
    "weights in a proper index": sharded("part.safetensors"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_good(folder)
    return folder


@pytest.fixture
def work(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("attack", REFUSED_BY_FETCH)
def test_fetch_says_in_one_line_what_is_wrong_and_loses_nothing(
    work: Path, attack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change, expected = REFUSED_BY_FETCH[attack]
    change(work / "lm")
    assert SAID_OF_PARAMS.get(attack, expected) in fetch_error(work)
    assert capfd.readouterr() == ("", "")  # neither from a logger nor from compiled code


def test_labels_without_end_are_not_made(work: Path) -> None:
    config = json.loads((work / "lm/config.json").read_text())
    (work / "lm/config.json").write_text(json.dumps(config | {"num_labels": 10**18}))
    run_stage("fetch_model", work)


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "bos_token"])
def test_a_special_token_of_no_characters_is_none(work: Path, name: str) -> None:
    settings = json.loads((work / "lm/tokenizer_config.json").read_text())
    (work / "lm/tokenizer_config.json").write_text(json.dumps(settings | {name: ""}))
    tokens = tokenise(load_tokenizer(work / "lm"), ["a"], ["How are you?"], max_tokens=9)
    assert all(isinstance(number, int) for number in tokens.special_ids)


def test_a_panic_of_compiled_code_says_nothing_beside_the_line(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = json.loads((work / "lm/tokenizer.json").read_text())
    settings["model"]["continuing_subword_prefix"] = "a" * 50
    (work / "lm/tokenizer.json").write_text(json.dumps(settings))
    assert "lm has no tokenizer that loads" in fetch_error(work)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("attack", SAID_OF_PARAMS)
def test_the_library_refuses_what_is_no_file_as_well(work: Path, attack: str) -> None:
    change, expected = REFUSED_BY_FETCH[attack]
    change(work / "lm")
    with working_in(work), pytest.raises(UserError) as error:
        describe(Path("lm"))
    assert expected in str(error.value)


@pytest.mark.parametrize("attack", REFUSED_BY_EXTRACT)
def test_extract_says_in_one_line_what_fetch_cannot_see(work: Path, attack: str) -> None:
    change, expected = REFUSED_BY_EXTRACT[attack]
    change(work / "lm")
    run_stage("fetch_model", work)
    assert expected in run_stage_error("extract", work)


@pytest.mark.parametrize("attack", IGNORED)
def test_settings_that_lead_elsewhere_change_nothing(good: Path, work: Path, attack: str, offline: None) -> None:
    IGNORED[attack](work / "lm")
    run_stage("fetch_model", work)
    expected, found = (ModelLock.read(folder / "models/model.lock.json") for folder in (good, work))
    assert (found.architecture, found.layers, found.width) == (expected.architecture, expected.layers, expected.width)
    model, other = (load_model(folder / "lm", 2, "auto", "cpu") for folder in (good, work))
    assert model.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(weights, other.state_dict()[name]) for name, weights in model.state_dict().items())
    texts = ["What <|im_end|> now?", "é"]
    assert load_tokenizer(good / "lm")(texts)["input_ids"] == load_tokenizer(work / "lm")(texts)["input_ids"]


def test_a_terminal_is_not_asked_whether_to_run_code(work: Path) -> None:
    marks = "import pathlib; pathlib.Path('RAN').touch()\nclass Evil: pass\n"
    for name, changes in {"known": {}, "unknown": {"model_type": "evil"}}.items():
        folder = work / name
        shutil.copytree(work / "lm", folder)
        text("code.py", marks)(folder)
        places = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "code.Evil")
        config(auto_map=places, **changes)(folder)
        own = {"auto_map": {"AutoTokenizer": ["code.Evil", "code.Evil"]}, "tokenizer_class": "Evil"}
        keys("tokenizer_config.json", **own)(folder)
    program = (
        "import pipeline.stages\nfrom pathlib import Path\nfrom pipeline.lm.load import describe, load_model\n"
        "for name in ('known', 'unknown'):\n"
        "    try:\n        print(describe(Path(name))['architecture'])\n"
        "        load_model(Path(name), 1, 'auto', 'cpu')\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n" * 20)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(work / "hub")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=theirs, capture_output=True, text=True, timeout=300, check=True
    )
    os.close(theirs)
    os.close(ours)
    assert [line for line in done.stdout.splitlines() if line] == [
        "qwen3",
        "UserError unknown: config.json is missing or not a known transformer's (model_type = 'evil'; code that comes "
        "with a model is never run): check the model directory",
    ]
    assert not list(work.rglob("RAN"))
    assert not (work / "hub").exists()


def test_what_is_loaded_is_what_is_locked(work: Path) -> None:
    for name in ("code.py", "pytorch_model.bin", "adapter_config.json", "generation_config.json"):
        text(name, "{}")(work / "lm")
    (work / "lm/original").mkdir()
    with viewed(work / "lm") as view:
        names = {path.name for path in view.iterdir()}
        assert names <= hash_files(work / "lm").keys()
        assert names.isdisjoint({"code.py", "pytorch_model.bin", "adapter_config.json", "generation_config.json"})
    assert not view.exists()


def test_a_model_directory_that_is_gone_is_said_by_extract(work: Path) -> None:
    shutil.rmtree(work / "lm")
    assert run_stage_error("extract", work).startswith("lm is not a directory: set model.path to a model")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(work: Path) -> None:
    (work / "lm/config.json").chmod(0)
    assert run_stage_error("fetch_model", work).startswith("lm/config.json cannot be read (Permission denied)")


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 1}'])
def test_a_lock_that_is_none(work: Path, content: str) -> None:
    (work / "models/model.lock.json").write_text(content)
    assert run_stage_error("extract", work).startswith("models/model.lock.json is not a lock of a model")


def test_too_little_memory_is_said_as_that(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("pipeline.lm.load.AutoModel.from_pretrained", full)
    with pytest.raises(
        UserError, match=r"out of memory \(CUDA out of memory.\): free some memory, or choose a smaller"
    ):
        load_model(work / "lm", 1, "auto", "cpu")


def test_faults_of_this_project_keep_their_traceback(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lm.view._without_leads", None)  # a bug: every setting is handed to None
    monkeypatch.setattr("pipeline.lm.view.read_settings", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_config(work / "lm")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UserError, match=rf"^device = '{device}' is not available here: set it to auto or cpu$"):
        pick_device(device)


def test_describe_needs_no_stage(work: Path) -> None:
    assert describe(work / "lm")["architecture"] == "qwen3"
