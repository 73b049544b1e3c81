"""params.yaml under attack: it is read as DVC reads it, or refused in one line before anything runs."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from dvc.utils.serialize import load_yaml as load_as_dvc
from helpers import run_stage_error, working_in, write_params

from pipeline.core.errors import UserError
from pipeline.params.base import read, read_file
from pipeline.params.root import check_params_file
from pipeline.params.yaml_file import parse_yaml
from pipeline.stages.run import run_stage
from tools.stage_code import ROOT


def doubling(form: str) -> str:
    """Lines that each hold the one before several times."""
    return "".join(f"a{i + 1}: &a{i + 1} {form.format(*[f'*a{i}'] * 3)}\n" for i in range(40))


# id, text, what the error line says after the file's name
TEXTS: list[tuple[str, str, str]] = [
    ("a key twice", "a:\n  b: 1\n  b: 2\n", ", line 3: key 'b' stands there a second time"),
    ("a section twice", "a: {b: 1}\na: {b: 2}\n", ", line 2: key 'a' stands there a second time"),
    ("a python object", "a: !!python/object/apply:os.system [exit]", " is not valid YAML: line 1: .*constructor"),
    ("a tag", "a: !secret 1", " is not valid YAML: line 1: .*constructor"),
    ("a tag with an escape", "a: !%1b[31m 1", r" is not valid YAML: line 1: [ -~]*$"),
    ("a number that is none", 'a: !!int ""', " is not valid YAML: "),
    ("a month that is none", "a: 2020-13-45", " is not valid YAML: month"),
    ("digits beyond Python's limit", f"a: {'9' * 5000}", " is not valid YAML: "),
    ("hexadecimal digits without end", f"a: 0x{'f' * 5000}", ": a is an integer beyond 64 bits"),
    ("an integer beyond 64 bits", f"a: [{10**30}]", ": a.0 is an integer beyond 64 bits"),
    ("a date", "a: 2020-01-01", ": a = datetime.date.* is a date: put text in quotes"),
    ("bytes", "a: !!binary aGVsbG8=", ": a = b'hello' is a bytes"),
    ("a set", "a: !!set {x, y}", ": a = .* is a set"),
    ("infinity", "a: {b: .inf}", ": a.b = inf is not allowed: should be a finite number"),
    ("minus infinity", "a: [-.inf]", ": a.0 = -inf is not allowed"),
    ("not a number", "a: .nan", ": a = nan is not allowed"),
    ("a commit that reads as a number", "a: 12e34567", ": a = inf is not allowed.*quote text"),
    ("a key that is a number", "a: {1: 2}", ": key 1 below a is not text: put it in quotes"),
    ("a key that is null", "~: 2", ": key None is not text"),
    ("a key that is a list", "? [a, b]\n: 1", r": key \('a', 'b'\) is not text"),
    ("a tab", "a:\n\tb: 1", " is not valid YAML: line 2: found character"),
    ("a control character", "a: \x1b[31m", r" is not valid YAML: [ -~]*$"),
    ("a NUL", 'a: "x\0"', " is not valid YAML: "),
    ("half a surrogate pair", r'a: "\ud800"', " is not valid YAML: "),
    ("two documents", "a: 1\n---\nb: 2", " is not valid YAML: line 2: but found another document"),
    ("a version of YAML to come", "%YAML 1.3\n---\na: 1", " is not valid YAML: line 1: "),
    ("an alias of nothing", "a: *x", " is not valid YAML: line 1: found undefined alias"),
    ("a list in itself", "a: &a [*a]", " has more than 10000 values"),
    ("brackets without end", "a: " + "[" * 100_000, " is nested deeper than 20 levels"),
    ("brackets that close", "[" * 100_000 + "]" * 100_000, " is nested deeper than 20 levels"),
    ("keys in keys", "".join(f"{' ' * level}a:\n" for level in range(500)), " is nested deeper than 20 levels"),
    ("lists in lists", "- " * 100_000, " is nested deeper than 20 levels"),
    ("a billion laughs", "a0: &a0 [x, x]\n" + doubling("[{}, {}, {}]"), " has more than 10000 values"),
    ("merges that double", "a0: &a0 {k: 1}\n" + doubling("{{<<: [{}, {}]}}"), " has more than 10000 values"),
    ("a long list", f"a: [{'0,' * 20_000}0]", " has more than 10000 values"),
    ("no keys", "- a\n- b", " holds no keys"),
    ("a text alone", "hello", " holds no keys"),
]  # fmt: skip

# text -> value of `a`
AS_DVC = {
    "1e-05": 1e-05,
    "1e5": 1e5,
    "1_000": 1000,
    "012": 12,
    "0o14": 12,
    "0x10": 16,
    "on": "on",
    "yes": "yes",
    "no": "no",
    "y": "y",
    "TRUE": True,
    "12:30:45": "12:30:45",
    "inf": "inf",
    "~": None,
    "": None,
    "'1e-05'": "1e-05",
    "&x [1]\nb: *x": [1],
}

# key, value, what the line says of it
VALUES: list[tuple[str, Any, str]] = [
    *((key, value, rf"{re.escape(key)}(\.0)? = \[?{value}\]? is not allowed: should be a finite number")
      for value in (float("inf"), float("nan"))
      for key in ("split.test_fraction", "split.near_duplicate", "split.same_words", "split.largest_group",
                  "sae.held_out_fraction", "evaluate.confidence",
                  "sae.lr", "sae.aux_coefficient", "sae.variants.topk.lr", "sae.variants.topk.aux_coefficient")),
    ("probe.c_grid", [float("inf")], "probe.c_grid.0 = inf is not allowed"),
    ("probe.noise", [float("nan")], "probe.noise.0 = nan is not allowed"),
    *((key, 10**12, rf"{re.escape(key)} = 1000000000000 is not allowed: should be less than")
      for key in ("data.sample_rows", "data.max_prompt_chars", "filter.min_chars", "filter.max_prompts",
                  "model.tiny.train_prompts", "model.tiny.steps", "model.tiny.layers", "model.tiny.width",
                  "model.tiny.vocabulary", "extract.max_tokens", "extract.batch_tokens", "extract.shard_mb",
                  "sae.memory_mb", "sae.target", "sae.width", "sae.batch_size", "sae.epochs", "sae.patience",
                  "sae.variants.topk.width", "sae.variants.topk.batch_size", "sae.variants.topk.epochs",
                  "sae.variants.topk.patience", "split.shingle_chars", "split.template_words",
                  "probe.target", "probe.folds", "probe.draws", "probe.min_class_prompts", "evaluate.resamples",
                  "seed")),
    ("sae.variants.topk.k", 10**12, "sae.variants.topk.k = 1000000000000 is not allowed: should be at most"),
    ("probe.scarce", [10**12], "probe.scarce.0 = 1000000000000 is not allowed"),
    ("probe.c_grid", [0.1] * 101, r"probe.c_grid = .{38,40} \.\.\. .{38,40} is not allowed"),
    ("probe.poolings", ["mean"] * 4, "probe.poolings = .* is not allowed"),
    ("seeds", list(range(101)), "seeds = .* is not allowed"),
    ("extract.points", ["mlp_out.99999999999999999999"], "extract.points.0 = 'mlp_out.9*' is not allowed"),
    ("extract.points", ["mlp_out.1\n"], r"extract.points.0 = 'mlp_out.1\\n' is not allowed"),
    ("extract.points", ["mlp_out.\uff11"], "extract.points.0 = 'mlp_out.\uff11' is not allowed"),
    ("extract.points", ["resid_post.1; touch PWNED"], "extract.points.0 = 'resid_post.1; touch PWNED' is not allowed"),
    ("data.clusters", ["a"] * 6, "data.clusters = .*should not give 0 and 1 the same name"),
    ("data.clusters", ["a", "b", "a\u00ad"], "data.clusters = .*should not give 0 and 2 the same name"),
    ("data.clusters", ["a b", "a  b"], "data.clusters = .*the same name"),
    ("data.clusters", ["a", "b "], "data.clusters.1 = 'b ' .*should not begin or end with white space"),
    ("data.clusters", ["a", ""], "data.clusters.1 = '' is not allowed"),
    ("data.clusters", ["a", "\u200b"], r"data.clusters.1 = '\\u200b' .*something to see"),
    ("data.clusters", ["a", "b\x1b[31m"], r"data.clusters.1 = 'b\\x1b\[31m' .*no control characters"),
    ("data.clusters", ["a", "b\nc"], r"data.clusters.1 = 'b\\nc' .*no control characters"),
    ("data.clusters", ["a", "b" * 101], r"data.clusters.1 = 'b* \.\.\. b*' is not allowed.*at most 100 characters"),
    ("data.repo", "../..", "data.repo = '../..' is not allowed"),
    ("model.repo", "a/../b", "model.repo = 'a/../b' is not allowed"),
    ("data.split", "x" * 300, r"data.split = 'x* \.\.\. x*' is not allowed"),
    ("sae.train", [{"a": 1}], "sae.train.0 = {'a': 1} is not allowed"),
    ("sae.train", ["x; touch PWNED #"], "sae.train = .*should name variants of sae.variants"),
    *((f"sae.variants.{name}", {"architecture": "relu", "width": 64, "k": 4}, f"sae.variants.{shown} = .* not allowed")
      for name, shown in (("x; touch PWNED #", "x; touch PWNED #"), ("$(id)", r"\$\(id\)"), ("a/b", "a/b"),
                          ("a-b", "a-b"), ("A", "A"), ("é", "é"), ("a\x1b[31m", r"a\\x1b\[31m"), ("a" * 65, "a*"))),
    ("sae.variants.x\x1b[2Jy\nz", 3, r"sae.variants.x\\x1b\[2Jy z = .* is not allowed"),
    ("data.path", "https://example.org/prompts.csv", "data.path = .* is not allowed: it is an address"),
    ("model.path", "s3://bucket/model", "model.path = .* is not allowed: it is an address"),
    (
        "data.path",
        "x" * 300,
        r"data.path = 'x* \.\.\. x*' is not allowed: it cannot be looked at \(File name too long\)",
    ),
    ("data.path", "x" * 5000, r"data.path = 'x* \.\.\. x*' is not allowed: String should have at most 4096"),
    ("data.path", "a\0b", r"data.path = 'a\\x00b' is not allowed: it is no file's name"),
]  # fmt: skip


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))  # a whole path may be too long for one


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def holding(inside: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        (path / "deep").mkdir(parents=True)
        inside(path / "deep/file")

    return make


def crowded(path: Path) -> None:
    path.mkdir()
    for number in range(10_001):
        (path / str(number)).touch()


# id, key, how the thing at its path is made, what the line says of it; all but the last kind hang whoever hashes them
THINGS: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("a pipe of prompts", "data.path", pipe, "is a named pipe, not a file"),
    ("a pipe of harmless prompts", "data.benign", pipe, "is a named pipe, not a file"),
    ("a socket", "data.path", listening, "is a socket, not a file"),
    ("zeros without end", "data.path", linked("/dev/zero"), "is a device, not a file"),
    ("the kernel's messages", "data.path", linked("/proc/kmsg"), "is not on a disk but made up by the system"),
    ("a link to itself", "data.path", lambda path: path.symlink_to(path.name), "cannot be looked at"),
    ("the whole disk as prompts", "data.path", linked("/"), "is a directory, not a file"),
    ("a pipe as a model", "model.path", pipe, "is a named pipe, not a directory"),
    ("a file as a model", "model.path", Path.touch, "is a file, not a directory"),
    ("a pipe in a model", "model.path", holding(pipe), "holds 'file', which is a named pipe, not a file"),
    ("zeros in a model", "model.path", holding(linked("/dev/zero")), "holds 'file', which is a device, not a file"),
    ("the system as a model", "model.path", linked("/proc"), "is not on a disk but made up by the system"),
    ("a home as a model", "model.path", crowded, "holds more than 10000 files"),
    ("a pipe as an SAE", "sae.variants.other.path", pipe, "is a named pipe, not a directory"),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS])
def test_a_file_that_dvc_would_not_read_or_nobody_could_is_one_line(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    line = run_stage_error("filter", tmp_path)
    assert re.match(f"params.yaml{expected}", line), line
    assert line.isprintable() and len(line) < 400


@pytest.mark.parametrize("text", AS_DVC)
def test_values_are_read_as_dvc_reads_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"a: {text}\n")
    with working_in(tmp_path):
        found = read_file()
    assert found == load_as_dvc(str(tmp_path / "params.yaml"))
    assert found["a"] == AS_DVC[text] and type(found["a"]) is type(AS_DVC[text])


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_bytes()
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    with working_in(tmp_path):
        assert read_file() == parse_yaml(text.decode(), "params.yaml")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.mkdir(), "params.yaml is not a regular file"),
        (pipe, "params.yaml is not a regular file"),
        (linked("/dev/zero"), "params.yaml is not a regular file"),
        (lambda path: path.symlink_to(path.name), "params.yaml is a link that leads back to itself"),
        (lambda path: path.write_bytes(b"# \n" * 400_000), "params.yaml has 1200000 bytes, more than 1048576"),
        (lambda path: path.write_bytes(b"a: 1\nb: \xff"), r"params.yaml is not UTF-8 \(line 2\)"),
        (lambda path: path.write_text("a: 1", encoding="utf-16"), r"params.yaml is not UTF-8 \(line 1\)"),
    ],
    ids=["directory", "pipe", "zeros", "a link to itself", "large", "Latin-1", "UTF-16"],
)
def test_a_params_file_that_is_no_file_of_text_is_one_line(
    make: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    make(tmp_path / "params.yaml")
    assert re.match(expected, run_stage_error("filter", tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "expected"), VALUES, ids=[f"{number} {case[0][:30]}" for number, case in enumerate(VALUES)]
)
def test_a_value_that_no_run_survives_is_one_line(key: str, value: Any, expected: str, tmp_path: Path) -> None:
    write_params(tmp_path, {key: value} if "\0" not in str(value) else {})
    if "\0" in str(value):  # YAML has no way to hold it but an escape
        text = (tmp_path / "params.yaml").read_text()
        (tmp_path / "params.yaml").write_text(text.replace("path: data/example.csv", r'path: "a\0b"'))
    line = run_stage_error("filter", tmp_path)
    assert re.match(f"params.yaml: ({expected})", line), line
    assert line.isprintable() and len(line) < 500


@pytest.mark.parametrize("kind", [float, list[float]])
def test_a_single_value_that_a_stage_reads_is_finite_too(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [.inf]\n" if kind is not float else "a: .inf\n")
    with working_in(tmp_path), pytest.raises(UserError, match="finite"):
        read("a", kind)


@pytest.mark.parametrize(("key", "make", "expected"), [case[1:] for case in THINGS], ids=[case[0] for case in THINGS])
def test_what_dvc_would_hash_without_end_is_one_line(
    key: str, make: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {key: "thing"}
    if key.startswith("sae."):
        changes = {"sae.variants.other": {"architecture": "pretrained", "path": "thing", "sha256": "0" * 64}}
    write_params(tmp_path, changes)
    with working_in(tmp_path):
        make(tmp_path / "thing")
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.params"], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"error: params.yaml: {re.escape(key)} = 'thing' is not allowed: it {expected}.*\n", done.stderr
    ), done.stderr


@pytest.mark.parametrize("name", ["missing.csv", "params.yaml/below", 'it\'s a "file", {a,b} [1] $HOME.csv'])
def test_a_file_of_any_name_that_is_there_or_missing_is_for_the_stage_that_reads_it(name: str, tmp_path: Path) -> None:
    write_params(tmp_path, {"data.path": name})
    with working_in(tmp_path):
        check_params_file()


# what DVC calls the stage, arguments given by hand -> items, or the error line
@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        ("train_sae@resid_post.2-batch_topk", [], ("resid_post.2", "batch_topk")),
        ("../sub-dir/dvc.yaml:train_sae@resid_post.2-batch_topk", [], ("resid_post.2", "batch_topk")),
        ("train_sae@resid_post.2-batch_topk", ["layer_delta.2", "relu"], ("layer_delta.2", "relu")),
        ("other@resid_post.2-batch_topk", ["layer_delta.2", "relu"], ("layer_delta.2", "relu")),
        (None, ["layer_delta.2", "relu"], ("layer_delta.2", "relu")),
        (None, ["resid_post.3", "relu"], "point 'resid_post.3' is not in params.yaml"),
        (None, ["resid_post.2", "../x"], "variant '../x' is not in params.yaml"),
        ("train_sae@resid_post.2-x; touch PWNED #", [], "variant 'x; touch PWNED #' is not in params.yaml"),
    ],
)
def test_a_matrix_stage_finds_its_items_in_the_name_that_dvc_gives_it(
    stage: str | None,
    arguments: list[str],
    expected: tuple[str, str] | str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_params(tmp_path, {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_sae.py", *arguments])
    if stage:
        monkeypatch.setenv("DVC_STAGE", stage)
    main = mock.Mock()
    if isinstance(expected, tuple):
        run_stage(main, "", "point", "variant")
        main.assert_called_once_with(point=expected[0], variant=expected[1])
        return
    with pytest.raises(SystemExit):
        run_stage(main, "", "point", "variant")
    assert f"error: {expected}" in capsys.readouterr().err
    main.assert_not_called()


@pytest.mark.parametrize(
    ("stage", "items", "left"),
    [
        ("evaluate", (), "metrics/sae/resid_post.1/batch_topk.json"),
        ("intervene", ("resid_post.2", "batch_topk"), "models/probes/dense/resid_post.1/dense/weights"),
    ],
)
def test_a_stage_that_fails_removes_nothing_of_points_that_are_no_longer_asked_for(
    stage: str, items: tuple[str, ...], left: str, tmp_path: Path
) -> None:
    write_params(tmp_path, {})
    (tmp_path / left).parent.mkdir(parents=True)
    (tmp_path / left).write_text("a result")
    assert "missing" in run_stage_error(stage, tmp_path, *items)
    assert (tmp_path / left).read_text() == "a result"
