"""runs/*.sh, and whatever a page prints to set a param: DVC accepts it and so does this project, or it is one line."""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.exceptions import InvalidArgumentError
from dvc.repo.experiments.run import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from helpers import dump_yaml, load_yaml, working_in, write_params

from pipeline.core.errors import UserError
from pipeline.params.root import Params, check_params_file
from tools.stage_code import ROOT


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """runs/ in a project with params.yaml and a dvc that only writes down its arguments."""
    shutil.copytree(ROOT / "runs", tmp_path / "project/runs")
    write_params(tmp_path / "project", {})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dvc").write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" > {tmp_path}/arguments\n')
    (tmp_path / "bin/dvc").chmod(0o755)
    return tmp_path


def run_script(scripts: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_in(scripts, scripts, scripts / "project/runs" / name, *arguments)


def run_in(scripts: Path, folder: Path, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in `folder`, with the dvc of `scripts`, whose folder `home` is the user's."""
    path = os.pathsep.join([str(scripts / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(scripts / "home")},
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )


def settings_given(scripts: Path) -> list[str]:
    """The -S that dvc was started with."""
    arguments = (scripts / "arguments").read_text().split("\0")
    return [value for before, value in itertools.pairwise(arguments) if before == "-S"]


def params_of(scripts: Path, settings: list[str]) -> list[Params]:
    """The project's params with the settings, as 'dvc exp run' makes them of it: of each experiment of a sweep.

    Raises: InvalidArgumentError of DVC for what it refuses, such as a key that is not there; UserError for params that
        this project refuses.
    """
    found = []
    written = (scripts / "project/params.yaml").read_bytes()
    for overrides in get_hydra_sweeps(to_path_overrides(settings)):
        with working_in(scripts / "project"):
            for path, each in overrides.items():
                apply_overrides(path, each)
            found.append(check_params_file())
            Path("params.yaml").write_bytes(written)
    return found


def commands(text: str) -> set[str]:
    """The commands in a page or script that set a param: lines of code blocks and of comments, and code in a text.

    Where there is nothing but -S, it is of 'dvc exp run'. Synopses, with [-S key=value ...], are left out.
    """
    text = text.replace("\\\n", " ")
    found = re.findall(r"(?m)^(?:#\s+)?([^`\n]+)$", text)
    found += re.findall(r"`([^`]+)`", re.sub(r"(?s)```.*?```", "", text))
    found = [" ".join(re.sub(r"\s#.*", "", command).split()) for command in found]
    found = [f"dvc exp run {command}" if command.startswith("-S ") else command for command in found]
    return {
        command
        for command in found
        if re.match(r"dvc exp run .*-S |runs/[\w-]+\.sh( |$)", command) and "[-S " not in command
    }


def printed() -> list[str]:
    pages = [ROOT / "params.yaml", *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("runs/*.sh")]
    return sorted({command for page in pages for command in commands(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", printed())
def test_a_printed_command_sets_params_that_dvc_and_this_project_accept(command: str, scripts: Path) -> None:
    for folder in ("project/prompts.csv", "project/prompts.parquet"):
        (scripts / folder).touch()
    for model in ("llama", "gpt2"):
        (scripts / "home/models" / model).mkdir(parents=True)
    done = run_in(scripts, scripts / "project", "bash", "-c", command)
    assert done.returncode == 0, done.stderr
    settings = settings_given(scripts)
    assert settings and params_of(scripts, settings)


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ("sae.variants.topk.lr=1e-5", InvalidArgumentError),
        ("++sae.variants.topk.lr=1e-5", None),
        ("sae.widht=4096", InvalidArgumentError),
        ("++sae.widht=4096", UserError),
        ("sae.k=4096", UserError),
        ("extract.device=cpu", InvalidArgumentError),
    ],
)
def test_a_setting_that_is_refused_is_noticed(setting: str, refused: type[Exception] | None, scripts: Path) -> None:
    with pytest.raises(refused) if refused else contextlib.nullcontext():
        params_of(scripts, [setting])


def test_settings_are_found_in_code_and_comments() -> None:
    text = """
Say `-S 'a=[1]'` or `dvc exp run
-S b=2 -S c=3`; `-S` alone is none, nor is `dvc exp run`.
```
dvc exp run --queue -S d=4   # a comment: then dvc exp run --run-all
dvc exp run -S e=5 \\
    -S f=6
dvc exp run --run-all   # those
runs/y.sh               # as it is
```
#   runs/x.sh [-S key=value ...]
#   runs/x.sh -S g=7
"""
    assert commands(text) == {
        "dvc exp run -S 'a=[1]'",
        "dvc exp run -S b=2 -S c=3",
        "dvc exp run --queue -S d=4",
        "dvc exp run -S e=5 -S f=6",
        "runs/y.sh",
        "runs/x.sh -S g=7",
    }


@pytest.mark.parametrize("variant", ["batch_topk", "topk"])
def test_a_sweep_trains_one_variant_in_every_k_and_width(variant: str, scripts: Path) -> None:
    write_params(scripts / "project", {"sae.variants.topk.k": 3})  # wins over a shared one
    done = run_script(scripts, "sae-sweep.sh", "--variant", variant, "--k", "4,8", "--width", "512,1024")
    assert done.returncode == 0, done.stderr
    found = params_of(scripts, settings_given(scripts))
    assert all(params.sae.train == [variant] for params in found)
    saes = [params.sae.variant(variant) for params in found]
    assert {(sae.k, sae.width) for sae in saes} == {(4, 512), (4, 1024), (8, 512), (8, 1024)}


NAMES = [
    "it's",
    'a "b"',
    "a, b",
    "{a,b}",
    "[1,2]",
    "$HOME `id` $(id)",
    "a=b:c#d",
    "-S",
    "glob(*)",
    "ü é",
    "null",
    "\u202e",
]
BAD_NAMES = ["a\\", "${seed}", "line\nbreak", "end\n", "\x1b[31m", "\udcff"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_of_any_name_reaches_params_yaml_as_it_is(name: str, scripts: Path) -> None:
    (scripts / f"{name}.csv").touch()
    (scripts / name).mkdir()
    done = run_script(scripts, "local.sh", f"./{name}.csv", f"./{name}", "-S", "seed=1")
    assert done.returncode == 0, done.stderr
    (found,) = params_of(scripts, settings_given(scripts))
    assert found.data.path == str(scripts / f"{name}.csv")
    assert found.model.path == str(scripts / name) and found.seed == 1


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_path_that_dvc_cannot_be_told_is_one_line(name: str, scripts: Path) -> None:
    (scripts / f"{name}.csv").touch()
    (scripts / "lm").mkdir()
    done = run_script(scripts, "local.sh", f"{name}.csv", "lm")
    assert done.returncode == 2 and not (scripts / "arguments").exists()
    assert re.fullmatch(r"error: .*: rename it\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--variant", "x; touch PWNED #"], "--variant"),
        (["--variant", "topk,relu"], "--variant"),
        (["--variant", "topk\nrelu"], "--variant"),
        (["--variant", ""], "--variant"),
        (["--variant", "nope"], "variant 'nope' is not in params.yaml: it has batch_topk, topk,"),
        (["--variant", "É"], "--variant"),
        (["--k", "range(1,10)"], "--k and --width"),
        (["--k", "4,,8"], "--k and --width"),
        (["--k", "-4"], "--k and --width"),
        (["--width", "1e3"], "--k and --width"),
        (["--width", "64] seed=[1"], "--k and --width"),
    ],
)
def test_a_sweep_of_what_is_no_name_or_number_is_one_line(arguments: list[str], expected: str, scripts: Path) -> None:
    done = run_script(scripts, "sae-sweep.sh", *arguments)
    assert done.returncode == 2 and not (scripts / "arguments").exists()
    assert re.fullmatch(f"error: {expected}.*\n", done.stderr), done.stderr


@pytest.mark.parametrize("script", ["local.sh", "sae-sweep.sh", "qwen3-4b-gptq.sh"])
def test_every_script_looks_at_params_yaml_before_it_starts_dvc(script: str, scripts: Path) -> None:
    params = load_yaml(scripts / "project/params.yaml")
    params["sae"]["variants"]["x; touch PWNED #"] = params["sae"]["variants"]["topk"]
    dump_yaml(scripts / "project/params.yaml", params)
    (scripts / "a.csv").touch()
    (scripts / "lm").mkdir()
    done = run_script(scripts, script, *(["a.csv", "lm"] if script == "local.sh" else []))
    assert done.returncode == 2 and not (scripts / "arguments").exists()
    assert re.fullmatch("error: params.yaml: sae.variants.x; touch PWNED # = .* is not allowed.*\n", done.stderr)
