"""What cannot be seen in a text of others is named, on every page, in figures' and plots' names and in metrics."""

import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from report_pages import BROWSE, HOSTILE_SOURCE, Tab

from pipeline.core.text import label, labels, visible

# what a text is (a character each is named in it, wherever it stands) -> why nobody would see it
NAMED = {
    "control characters": "\x00\x07\x08\x0b\x0c\x1b\x7f\x80\x85\x9b",
    "a line end that overwrites the line": "\r",
    "line and paragraph separators": "\u2028\u2029",
    "overrides, embeddings and isolates of direction": "\u202a\u202d\u202e\u2066\u2067\u2068\u2069\u061c\u200e\u200f",
    "zero width": "\u200b\u2060\u2061\u2064\ufeff",
    "joiners between letters that do not join": "\u200c\u200d\u034f",
    "soft hyphen": "\u00ad",
    "tag characters: instructions smuggled as ASCII": "\U000e0001\U000e0041\U000e007f",
    "fillers of Hangul": "\u115f\u1160\u3164\uffa0",
    "vowels of Khmer that are not drawn": "\u17b4\u17b5",
    "Mongolian selectors and vowel separator": "\u180b\u180e\u180f",
    "blank braille": "\u2800",
    "signs drawn as nothing": "\ufffc\U0001d159\U00016fe4",
    "annotations between lines": "\ufff9\ufffa\ufffb",
    "variation selectors after letters: bytes smuggled in them": "\ufe00\ufe0e\ufe0f\U000e0100\U000e01ef",
    "musical and shorthand format controls": "\U0001d173\U0001bca0",
    "private use": "\ue000\uf8ff\U000f0000\U0010fffd",
    "not assigned, and never to be": "\u2065\ufff0\ufdd0\uffff\U000e0fff\U0010ffff",
    "half a surrogate pair": "\ud800\udfff",
    "spaces that no keyboard has": "\u1680\u2000\u2007\u200a\u205f",
}
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
KEPT = {
    "plain": "tell me, please: 1 < 2 & {3}\n\tquoted 'so'",
    "line ends of Windows": "one\r\ntwo\r\n",
    "French, with the spaces of its punctuation": "Quoi\u202f? «\u00a0Où\u00a0»",
    "Japanese, with its space": "質問\u3000です",
    "accents apart from their letters": "e\u0301 q\u0307\u0323",
    "Persian, with a non-joiner": PERSIAN,
    "Hindi and Sinhala, with joiners": "क्\u200dष ශ්\u200dරී",
    "emoji of several": "👩\u200d👩\u200d👧 👩🏽\u200d🚀 🏳\ufe0f\u200d🌈 ❤\ufe0f\u200d🔥 👁\ufe0f\u200d🗨\ufe0f",
    "emoji of signs": "❤\ufe0f ☺\ufe0e ↔\ufe0f ‼\ufe0f 1\ufe0f\u20e3 🇫🇷 🤷🏽\u200d♀\ufe0f",
    "right to left": "שלום مرحبا",
}
PARTLY = {
    "a second selector": ("❤\ufe0f\ufe0f", "❤\ufe0f<U+FE0F>"),
    "a selector of no sign": ("a\ufe0f 7\ufe0f", "a<U+FE0F> 7<U+FE0F>"),
    "a selector for more": ("😀\U000e0148", "😀<U+E0148>"),
    "a joiner at an end": ("👩\u200d", "👩<U+200D>"),
    "joiners in a row": ("👩\u200d\u200d👧", "👩<U+200D><U+200D>👧"),
    "non-joiners in a row": ("ی\u200c\u200cخ", "ی<U+200C><U+200C>خ"),
    "a flag of tags": ("🏴\U000e0067\U000e007f", "🏴<U+E0067><U+E007F>"),
    "a blank sign before a selector": ("\u2800\ufe0f", "<U+2800><U+FE0F>"),
}


@pytest.mark.parametrize("characters", NAMED.values(), ids=NAMED)
def test_a_character_that_cannot_be_seen_is_named(characters: str) -> None:
    for character in characters:
        name = f"<U+{ord(character):04X}>"
        assert visible(character) == name
        assert visible(f"a{character}b 你{character}好") == f"a{name}b 你{name}好"


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_languages_and_emoji_are_written_with_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(("text", "shown"), PARTLY.values(), ids=PARTLY)
def test_hidden_characters_do_not_pass_as_parts_of_emoji_or_letters(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_the_rule_is_that_of_unicodes_categories() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character)[0] in "CZ" and character not in " \n\t\u00a0\u202f\u3000":
            assert visible(character) == f"<U+{code:04X}>"


def test_a_name_is_one_line_of_limited_length_and_no_two_are_alike() -> None:
    assert label("  a\n\tb \x1b[31m ") == "a b <U+001B>[31m"
    assert label("a" * 80) == "a" * 80 and label("a" * 81) == label("a" * 10**6) == "a" * 79 + "…"
    assert label("a" + " " * 10**6 + "b") == "a…"
    assert labels(["a", "a ", "a", "a (2)", "b"]) == ["a", "a (2)", "a (3)", "a (2) (2)", "b"]


def texts_of(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def test_no_file_of_the_report_or_of_metrics_holds_a_character_that_cannot_be_seen(report: Path) -> None:
    pages = [path.read_text("utf-8") for path in report.rglob("*.html")]
    plots = [path.read_text("utf-8") for path in (report.parent / "metrics/plots").rglob("*.csv")]
    scripts = [path.read_text("utf-8") for path in report.rglob("data/*.js")]
    metrics = [path.read_text("utf-8") for path in (report.parent / "metrics").rglob("*.json")]
    held = [json.loads(re.fullmatch(r'receive\("[^"]+",(.*)\);\n', script, re.DOTALL)[1]) for script in scripts]  # type: ignore[index]
    texts = [*pages, *plots, *texts_of(held), *texts_of([json.loads(text) for text in metrics])]
    for text in texts:
        assert visible(text) == text
    for of_some in (pages, plots, metrics, list(texts_of(held))):
        assert any("U+202E" in text for text in of_some), "the hostile source is in each"
    assert any("U+E006F" in text for text in texts) and any("U+3164" in text for text in texts)


def test_what_is_named_is_framed_by_the_pages_scripts(browser: Any, report: Path) -> None:
    tab = Tab(browser, report)
    page = tab.open(f"{BROWSE}/prompts.html")
    page.fill("#search", visible(HOSTILE_SOURCE)[:40])
    first = page.locator("#prompts tbody tr").first
    assert first.locator("td.wide .unseen").all_inner_texts() == ["<U+202E>"]
    assert first.locator("td.wide").inner_text() == label(HOSTILE_SOURCE)
    first.locator("a").click()
    page.wait_for_selector("#detail p .unseen:text-is('<U+202E>')")
    assert tab.is_broken() == []
    tab.close()
