"""Tokenizers and chat templates that attack or are odd: each is one line, and templates are bounded."""

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
from helpers import SMALL, run_stage, run_stage_error, write_params
from model_attacks import Change, fetch_error, instead, keys, make_good, several, sparse, template, text, tokenizer

from pipeline.lm import chat
from pipeline.lm.load import load_tokenizer
from pipeline.lm.tokens import input_limit, tokenise

# what is done to a good model, and what fetch_model says of it
REFUSED_BY_FETCH: dict[str, tuple[Change, str]] = {
    "tokenizer is a list": (text("tokenizer.json", "[]"), "lm has no tokenizer that loads ("),
    "tokenizer is empty": (text("tokenizer.json", ""), "lm has no tokenizer that loads ("),
    "tokenizer is no UTF-8": (text("tokenizer.json", b"\xff\xfe"), "lm has no tokenizer that loads ("),
    "tokenizer is deep": (text("tokenizer.json", "[" * 100_000), "lm has no tokenizer that loads ("),
    "tokenizer is a pipe": (
        instead("tokenizer.json", os.mkfifo),
        "it holds 'tokenizer.json', which is a named pipe, not a file",
    ),
    "tokenizer is enormous": (sparse("tokenizer.json", 10**10), "lm/tokenizer.json has 10000000000 bytes"),
    "tokenizer has no model": (tokenizer(model={"type": "evil"}), "lm has no tokenizer that loads ("),
    "vocabulary is a list": (tokenizer(model={"vocab": [1]}), "lm has no tokenizer that loads ("),
    "an id below 0": (tokenizer(model={"vocab": {"a": -1}}), "lm has no tokenizer that loads ("),
    "an id beyond 32 bits": (tokenizer(model={"vocab": {"a": 2**32}}), "lm has no tokenizer that loads ("),
    "merges are nonsense": (tokenizer(model={"merges": [["evil", "evil"]]}), "lm has no tokenizer that loads ("),
    "added tokens are nonsense": (tokenizer(added_tokens=[{"id": "x"}]), "lm has no tokenizer that loads ("),
    "no regular expression": (
        tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}),
        "lm has no tokenizer that loads (",
    ),
    "tokenizer config is a list": (text("tokenizer_config.json", "[]"), "lm/tokenizer_config.json holds no keys"),
    "tokenizer config is cut off": (text("tokenizer_config.json", "{"), "lm/tokenizer_config.json is not JSON ("),
    "model_max_length is a text": (
        keys("tokenizer_config.json", model_max_length="x"),
        "model_max_length = 'x' is not",
    ),
    "model_max_length is a list": (
        keys("tokenizer_config.json", model_max_length=[1]),
        "model_max_length = [1] is not",
    ),
    "model_max_length is NaN": (
        keys("tokenizer_config.json", model_max_length=float("nan")),
        "model_max_length = nan is not a number",
    ),
    "tokenizer_class is a list": (
        keys("tokenizer_config.json", tokenizer_class=[1]),
        "lm has no tokenizer that loads (",
    ),
    "tokenizer_class is a model": (
        keys("tokenizer_config.json", tokenizer_class="AutoModel"),
        "lm has no tokenizer that",
    ),
    "tokenizer_class is itself": (
        keys("tokenizer_config.json", tokenizer_class="AutoTokenizer"),
        "lm has no tokenizer",
    ),
    "special tokens are garbage": (text("special_tokens_map.json", "5"), "lm/special_tokens_map.json holds no keys"),
    "added_tokens.json is garbage": (
        several(text("added_tokens.json", "[]"), text("tokenizer_config.json", "{}")),
        "lm has no tokenizer that loads (",
    ),
}
# what only shows when there are prompts
REFUSED_BY_EXTRACT: dict[str, tuple[Change, str]] = {
    "ids beyond the vocabulary": (
        tokenizer(
            added_tokens=[
                {"id": 700, "content": "the"}
                | dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
            ]
        ),
        "and the model has embeddings of 512 tokens: the tokenizer is not this model's",
    ),
    "a tokenizer without unknown words": (
        tokenizer(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "gone"}),
        "cannot be tokenised (",
    ),
    "a tokenizer that drops everything": (
        tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": "[^\n]"}, "content": ""}),
        "has no token to keep within extract.max_tokens",
    ),
}
TEN_DEEP = "{% for a in range(99999) %}" * 10 + "x" + "{% endfor %}" * 10
CONTENT = "{{ messages[0].content }}"
# chat templates, for which extract.prompt_format is chat; limits are lowered for those that never end
RAW = "set extract.prompt_format to raw"
REFUSED_TEMPLATES = {
    "syntax": (
        "{% if %}",
        f"the tokenizer's chat template fails (Expected an expression, got 'end of statement block'): {RAW}",
    ),
    "exception": ("{{ 1 / 0 }}", "the tokenizer's chat template fails (division by zero)"),
    "raise_exception": ("{{ raise_exception('no\nway') }}", "the tokenizer's chat template fails (no): "),
    "unknown name": ("{{ nothing.at.all }}", "the tokenizer's chat template fails ("),
    "include": ("{% include '/etc/passwd' %}", "the tokenizer's chat template fails ("),
    "escape from the sandbox": (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "the tokenizer's chat template fails (",
    ),
    "no prompt": ("nothing", "the tokenizer's chat template does not hold the prompt once"),
    "prompt twice": (CONTENT * 2, "the tokenizer's chat template does not hold the prompt once"),
    "prompt changed": (
        "{{ messages[0].content|upper }}",
        "the tokenizer's chat template does not hold the prompt once",
    ),
    "long output": (
        "{{ 'x' * 5000000 }}" + CONTENT,
        "the tokenizer's chat template fails (it makes 5000024 characters)",
    ),
    "huge output": ("{{ 'x' * 10**13 }}" + CONTENT, "the tokenizer's chat template fails ("),
    "large output": ("{{ ('x' * 3 * 10**9)|length }}" + CONTENT, "the tokenizer's chat template fails (out of memory)"),
    "huge range": ("{% for i in range(10**12) %}x{% endfor %}", "the tokenizer's chat template fails (Range too big"),
    "endless loops": (TEN_DEEP, "the tokenizer's chat template is not done after 1 seconds"),
    "endless number": ("{{ 9**9**9 }}", "the tokenizer's chat template "),
    "endless recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "the tokenizer's chat template fails ("),
    "deep nesting": ("{% if a %}" * 5000 + "{% endif %}" * 5000, "the tokenizer's chat template fails ("),
}
LIMITS = {"null": None, "zero": 0, "below zero": -1, "huge": 1e30, "a fraction": 300.5}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_good(folder)
    return folder


@pytest.fixture
def work(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("attack", REFUSED_BY_FETCH)
def test_fetch_says_in_one_line_what_is_wrong_and_loses_nothing(
    work: Path, attack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change, expected = REFUSED_BY_FETCH[attack]
    change(work / "lm")
    assert expected in fetch_error(work)
    assert capfd.readouterr() == ("", "")  # neither from a logger nor from compiled code


@pytest.mark.parametrize("attack", REFUSED_BY_EXTRACT)
def test_extract_says_in_one_line_what_fetch_cannot_see(work: Path, attack: str) -> None:
    change, expected = REFUSED_BY_EXTRACT[attack]
    change(work / "lm")
    run_stage("fetch_model", work)
    assert expected in run_stage_error("extract", work)


@pytest.mark.parametrize("attack", REFUSED_TEMPLATES)
def test_chat_templates_are_bounded(work: Path, attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, expected = REFUSED_TEMPLATES[attack]
    monkeypatch.setattr(chat, "_SECONDS", 1.0 if "endless" in attack else 60.0)
    template(source)(work / "lm")
    run_stage("fetch_model", work)
    write_params(work, SMALL | {"extract.prompt_format": "chat"})
    assert expected in run_stage_error("extract", work)


@pytest.mark.parametrize("limit", LIMITS)
def test_odd_limits_of_a_tokenizer_are_no_limits(work: Path, limit: str) -> None:
    keys("tokenizer_config.json", model_max_length=LIMITS[limit])(work / "lm")
    tokenizer = load_tokenizer(work / "lm")
    assert input_limit(tokenizer, 64, None) == 64
    assert input_limit(tokenizer, 1000, 500) == (300 if limit == "a fraction" else 500)
    assert len(tokenise(tokenizer, ["p"], ["word " * 99], max_tokens=input_limit(tokenizer, 64)).ids[0]) == 64


def test_a_chat_template_is_rendered_once_for_all_prompts(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template("Once: " + CONTENT)(work / "lm")
    tokenizer = load_tokenizer(work / "lm")
    rendered = mock.Mock(wraps=chat._rendered)
    monkeypatch.setattr(chat, "_rendered", rendered)
    for _ in range(2):
        tokenise(tokenizer, ["a", "b"], ["one", "two"], max_tokens=64, prompt_format="chat")
    assert rendered.call_count == 1
