"""Datasets and models from the hub, against a small one on a loopback port: what arrives, what is said."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_machine import Machine, closed_port
from hub_server import COMMIT, Faults, Hub, serving
from safetensors.numpy import save_file

from pipeline.lm.files import model_files
from tools.stage_code import ROOT

MEBI = 1 << 20
KINDS = ["dataset", "model"]
SECTION = {"dataset": "data", "model": "model"}
SMALL = {"dataset": "lab/prompts", "model": "lab/model"}
BIG = {"dataset": "lab/long-prompts", "model": "lab/model"}  # with a large file
BIG_FILE = {"dataset": "data/train-00000-of-00001.parquet", "model": "model.safetensors"}
ROWS = [
    {"prompt": 'Say "hello", please', "source": "made", "cluster": "0"},
    {"prompt": "Two\nlines, one prompt", "source": "made", "cluster": "3"},
    {"prompt": "NA", "source": "made", "cluster": "5"},
]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The hub's repositories."""
    root = tmp_path_factory.mktemp("hub")
    csv = '"Say ""hello"", please",made,0\n"Two\nlines, one prompt",made,3\nNA,made,5\n'
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: all.csv\n"
        "  - split: held_out\n    path: few.csv\n---\nPrompts.\n"
    )
    contents = {
        "datasets/lab/prompts": {
            "README.md": card,
            "all.csv": f"prompt,source,cluster\n{csv}",
            "few.csv": "prompt,source,cluster\nA prompt,made,1\n",
            "load.py": "raise SystemExit('code from the hub was run')",
        },
        "datasets/lab/damaged": {"train.parquet": "This is no parquet."},
        "datasets/lab/pictures": {"README.md": "# Pictures", "a.png": "PNG"},
        "models/lab/model": {
            "README.md": "# A model",
            "config.json": json.dumps({"model_type": "qwen3", "quantization_config": {"quant_method": "gptq"}}),
            "tokenizer.json": "{}",
            "tokenizer_config.json": "{}",
            "pytorch_model.bin": "a pickle",
            "modeling_own.py": "raise SystemExit('code from the hub was run')",
            "original/consolidated.safetensors": "the same weights once more",
        },
    }
    for repo, files in contents.items():
        for name, content in files.items():
            (root / repo / name).parent.mkdir(parents=True, exist_ok=True)
            (root / repo / name).write_text(content)
    weights = np.random.default_rng(0).integers(0, 256, 12 * MEBI, dtype=np.uint8)
    save_file({"qweight": weights}, root / "models/lab/model/model.safetensors")
    parquet = root / "datasets/lab/long-prompts" / BIG_FILE["dataset"]
    parquet.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(_long_rows()), parquet, compression="none", use_dictionary=False)
    return {path.relative_to(root).as_posix(): path for path in root.glob("*/*/*")}


def _long_rows() -> list[dict[str, Any]]:
    letters = random.Random(0)
    return [{"prompt": letters.randbytes(MEBI // 2).hex(), "source": "made", "cluster": row} for row in range(12)]


@pytest.fixture
def hub(repos: dict[str, Path]) -> Iterator[Hub]:
    with serving(repos) as running:
        yield running


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Machine:
    return Machine(tmp_path, hub.endpoint)


def _assert_whole(result: dict[str, Any], kind: str, repo: str, repos: dict[str, Path]) -> None:
    assert result["commit"] == COMMIT
    if kind == "dataset":
        assert result["rows"] == (ROWS if repo == SMALL["dataset"] else _long_rows())
        return
    files = [Path(file) for file in result["files"]]
    assert [file.name for file in files] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for file in files:
        assert file.read_bytes() == (repos[f"models/{repo}"] / file.name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_branch_is_resolved_and_fetched(machine: Machine, repos: dict[str, Path], kind: str) -> None:
    _assert_whole(machine.fetch(kind, SMALL[kind], "main"), kind, SMALL[kind], repos)


@pytest.mark.parametrize(("kind", "symlinks"), [("dataset", True), ("model", True), ("model", False)])
def test_commit_is_fetched_and_then_needs_no_hub(
    machine: Machine, repos: dict[str, Path], kind: str, symlinks: bool
) -> None:
    environment = {} if symlinks else {"HF_HUB_DISABLE_SYMLINKS": "1"}
    _assert_whole(machine.fetch(kind, SMALL[kind], COMMIT, **environment), kind, SMALL[kind], repos)
    machine.endpoint = closed_port()
    _assert_whole(machine.fetch(kind, SMALL[kind], COMMIT, **environment), kind, SMALL[kind], repos)


def test_parquet_dataset_without_a_card_is_fetched(machine: Machine, repos: dict[str, Path]) -> None:
    _assert_whole(machine.fetch("dataset", BIG["dataset"]), "dataset", BIG["dataset"], repos)


def test_split_that_the_card_names(machine: Machine) -> None:
    rows = machine.fetch("dataset", SMALL["dataset"], "main", "held_out")["rows"]
    assert rows == [{"prompt": "A prompt", "source": "made", "cluster": "1"}]


def test_unknown_split_names_those_there_are(machine: Machine) -> None:
    line = machine.error("dataset", SMALL["dataset"], "main", "validation")
    assert "data.split = validation" in line
    assert "train, held_out" in line


@pytest.mark.parametrize("repo", ["lab/damaged", "lab/pictures"])
def test_dataset_that_is_no_table(machine: Machine, repo: str) -> None:
    line = machine.error("dataset", repo)
    assert f"dataset {repo} (data.repo)" in line
    assert "is not a table in .csv, .jsonl or .parquet files" in line


def test_only_config_tokenizer_and_safetensors_are_downloaded(hub: Hub, machine: Machine) -> None:
    machine.fetch("model", SMALL["model"])
    for name in ["config.json", "model.safetensors"]:
        assert machine.cached(name) and hub.asked_for(name)
    for name in ["pytorch_model.bin", "modeling_own.py", "README.md", "consolidated.safetensors"]:
        assert not machine.cached(name) and not hub.asked_for(name)


def test_model_files_are_sorted_and_hold_no_code(repos: dict[str, Path]) -> None:
    names = [path.name for path in model_files(repos["models/lab/model"])]
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_other_sources_import_no_network_code() -> None:
    code = (
        "import sys, pipeline.stages.download, pipeline.stages.fetch_model; "
        "print({'pipeline.core.hub', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", KINDS)
def test_missing_repository(machine: Machine, kind: str) -> None:
    line = machine.error(kind, "lab/missing")
    assert f"{SECTION[kind]}.repo = lab/missing" in line
    assert "HF_TOKEN" in line


def test_name_that_no_repository_has(machine: Machine) -> None:
    assert "model.repo = lab/a--b cannot be the name" in machine.error("model", "lab/a--b")


@pytest.mark.parametrize(("kind", "revision"), [("dataset", "v9"), ("model", "v9"), ("model", "f" * 40)])
def test_unknown_revision(machine: Machine, kind: str, revision: str) -> None:
    assert f"{SECTION[kind]}.revision = {revision}: " in machine.error(kind, SMALL[kind], revision)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("status", "who"), [(401, "not logged in"), (403, "not admitted")])
def test_gated_repository(hub: Hub, machine: Machine, kind: str, status: int, who: str) -> None:
    hub.faults.file = (status, "GatedRepo")
    line = machine.error(kind, SMALL[kind])
    page = f"{hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{SMALL[kind]}"
    for part in [
        f"({SECTION[kind]}.repo)",
        "gated",
        who,
        f"accept its conditions on {page}",
        "hf auth login",
        "HF_TOKEN",
    ]:
        assert part in line


@pytest.mark.parametrize(
    ("kind", "faults", "part"),
    [
        ("dataset", Faults(api=(500, "")), "HTTP 500"),
        ("model", Faults(file=(503, "")), "HTTP 503"),
        ("dataset", Faults(api=(429, "")), "too many requests"),
        ("model", Faults(api=(403, "")), "access token"),
        ("dataset", Faults(web_page=True), "does not answer like a Hugging Face hub"),
        ("model", Faults(silent=True), "cannot be reached"),
    ],
)
def test_hub_that_fails(hub: Hub, machine: Machine, kind: str, faults: Faults, part: str) -> None:
    hub.faults = faults
    line = machine.error(kind, SMALL[kind])
    assert part in line
    assert hub.endpoint in line
    assert f"{kind} {SMALL[kind]} ({SECTION[kind]}.repo)" in line


def test_chunk_storage_is_left_aside_for_whole_files(hub: Hub, machine: Machine, repos: dict[str, Path]) -> None:
    hub.faults = Faults(xet=True)
    _assert_whole(machine.fetch("model", SMALL["model"], HF_HUB_DISABLE_XET="0"), "model", SMALL["model"], repos)
    assert not any("xet" in request.path for request in hub.requests)


@pytest.mark.parametrize(("kind", "revision"), [("dataset", "main"), ("model", "main"), ("model", COMMIT)])
def test_no_network(tmp_path: Path, kind: str, revision: str) -> None:
    endpoint = closed_port()
    line = Machine(tmp_path, endpoint).error(kind, SMALL[kind], revision)
    assert f"{endpoint} cannot be reached" in line
    assert f"set {SECTION[kind]}.source to {'sample' if kind == 'dataset' else 'tiny'} or local" in line


@pytest.mark.parametrize("endpoint", ["hub", "ftp://127.0.0.1", "http://127.0.0.1:99999", "https://"])
def test_address_that_no_hub_has(tmp_path: Path, endpoint: str) -> None:
    assert f"{endpoint.rstrip('/')} cannot be reached" in Machine(tmp_path, endpoint).error("model", SMALL["model"])


def test_offline_mode_without_a_cache(machine: Machine) -> None:
    assert "HF_HUB_OFFLINE" in machine.error("model", SMALL["model"], HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("kind", KINDS)
def test_cut_download_is_resumed_where_it_broke_off(
    hub: Hub, machine: Machine, repos: dict[str, Path], kind: str
) -> None:
    hub.faults = Faults(cut_at=11 * MEBI, cuts=1)
    _assert_whole(machine.fetch(kind, BIG[kind]), kind, BIG[kind], repos)
    first, second = [each for each in hub.asked_for(BIG_FILE[kind]) if each.path.startswith("/storage/")]
    assert (first.range, second.range) == (None, f"bytes={11 * MEBI}-")


def test_reset_connection_is_tried_again(hub: Hub, machine: Machine, repos: dict[str, Path]) -> None:
    hub.faults = Faults(cut_at=11 * MEBI, cuts=1, reset=True)
    _assert_whole(machine.fetch("model", BIG["model"]), "model", BIG["model"], repos)
    assert len(hub.asked_for(BIG_FILE["model"])) >= 2


@pytest.mark.parametrize(("kind", "reset"), [("dataset", False), ("model", False), ("model", True)])
def test_download_that_is_always_cut(hub: Hub, machine: Machine, kind: str, reset: bool) -> None:
    hub.faults = Faults(cut_at=11 * MEBI, reset=reset)
    line = machine.error(kind, BIG[kind])
    assert f"the download of {kind} {BIG[kind]} ({SECTION[kind]}.repo) broke off" in line


def test_a_download_that_comes_back_again_and_again_ends(hub: Hub, machine: Machine) -> None:
    hub.faults = Faults(cut_at=11 * MEBI, forgets=True)
    assert "broke off and could not be resumed" in machine.error("model", BIG["model"])
    assert len(hub.asked_for(BIG_FILE["model"])) < 30


@pytest.mark.parametrize("host", ["default", "machine 127.0.0.1", "machine localhost"])
def test_passwords_of_netrc_are_not_sent_and_not_in_the_way(
    hub: Hub, machine: Machine, repos: dict[str, Path], tmp_path: Path, host: str
) -> None:
    (tmp_path / "netrc").write_text(f"{host} login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    found = machine.fetch("model", BIG["model"], NETRC=str(tmp_path / "netrc"), HF_TOKEN="hf_token")
    _assert_whole(found, "model", BIG["model"], repos)
    sent = {each.path.startswith("/storage/"): each.authorization for each in hub.requests}
    assert sent == {False: "Bearer hf_token", True: None}


def test_the_environments_proxy_is_used(hub: Hub, machine: Machine) -> None:
    proxy = closed_port()
    assert "cannot be reached" in machine.error("model", SMALL["model"], http_proxy=proxy)
    machine.fetch("model", SMALL["model"], http_proxy=proxy, no_proxy="127.0.0.1,localhost")


@pytest.mark.parametrize(
    ("kind", "repo", "name", "symlinks"),
    [
        ("dataset", SMALL["dataset"], "all.csv", True),
        ("dataset", BIG["dataset"], BIG_FILE["dataset"], True),
        ("model", SMALL["model"], "config.json", True),
        ("model", SMALL["model"], "model.safetensors", True),
        ("model", SMALL["model"], "model.safetensors", False),
    ],
)
def test_wrong_bytes_are_not_kept_and_fetched_anew(
    hub: Hub, machine: Machine, repos: dict[str, Path], kind: str, repo: str, name: str, symlinks: bool
) -> None:
    environment = {} if symlinks else {"HF_HUB_DISABLE_SYMLINKS": "1"}
    hub.faults = Faults(wrong_bytes=Path(name).name)
    line = machine.error(kind, repo, **environment)
    assert f"{kind} {repo} ({SECTION[kind]}.repo): {name} that was sent differs in checksum" in line
    assert not machine.cached(Path(name).name)
    hub.faults = Faults()
    _assert_whole(machine.fetch(kind, repo, **environment), kind, repo, repos)


def test_short_file_is_refused_and_fetched_anew(hub: Hub, machine: Machine, repos: dict[str, Path]) -> None:
    hub.faults = Faults(short="model.safetensors")
    assert "too short or too long" in machine.error("model", SMALL["model"])
    hub.faults = Faults()
    _assert_whole(machine.fetch("model", SMALL["model"]), "model", SMALL["model"], repos)


def test_other_commit_in_the_cache_is_not_taken(machine: Machine) -> None:
    machine.fetch("dataset", SMALL["dataset"], COMMIT)
    machine.endpoint = closed_port()
    assert "cannot be reached" in machine.error("dataset", SMALL["dataset"], "e" * 40)


def test_file_damaged_in_the_cache_is_found_without_the_hub(machine: Machine) -> None:
    weights = Path(machine.fetch("model", SMALL["model"])["files"][1])
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    machine.endpoint = closed_port()
    assert "model.safetensors in the cache differs" in machine.error("model", SMALL["model"], COMMIT)


def test_incomplete_cache_is_completed(hub: Hub, machine: Machine, repos: dict[str, Path]) -> None:
    hub.faults = Faults(cut_at=11 * MEBI)
    machine.error("model", SMALL["model"])
    assert machine.cached("config.json") and not machine.cached("model.safetensors")
    hub.faults = Faults()
    hub.requests.clear()
    _assert_whole(machine.fetch("model", SMALL["model"]), "model", SMALL["model"], repos)
    assert hub.asked_for("model.safetensors") and not hub.asked_for("config.json")


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
def test_incomplete_cache_is_not_used_without_the_hub(machine: Machine, listed: bool) -> None:
    weights = Path(machine.fetch("model", SMALL["model"])["files"][1])
    weights.resolve().unlink()
    weights.unlink()
    if not listed:  # as older versions of huggingface_hub leave it
        next(machine.home.rglob(f"trees/{COMMIT}.json")).unlink()
    machine.endpoint = closed_port()
    assert f"{machine.endpoint} cannot be reached" in machine.error("model", SMALL["model"], COMMIT)
