"""A report with hostile prompts and long names, and its pages in a real browser, drawn with a font of choice."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest
from helpers import SMALL, sample_rows, save_small_model, write_params
from small_run import run_stages, stages_of

POINT, VARIANT = "resid_post.1", "batch_topk_of_a_name_that_is_longer_than_a_telephone_is_wide"
BROWSE = f"browse/{POINT}/{VARIANT}"
PAGES = ["index.html", "data.html", *(f"{BROWSE}/{name}.html" for name in ("sae", "latents", "prompts"))]
WIDTHS = (1280, 390)
TARGET = 3
SMALL_SOURCES = 40  # of one prompt each
HOSTILE_CLUSTER = 5  # no other prompts are of it, so the page of the prompt set shows these
CLUSTERS = [
    "Ambiguous Requests",
    "Jailbreak & Roleplay Attacks",
    "Financial Stuff & Fraud",
    "Toxicity & Hate Speech",
    "Violence & Illegal Activities",
    "Privacy Violations_of_one_word_that_is_longer_than_a_telephone_is_wide_<i>",
]
SAE = {"architecture": "batch_topk", "patience": None}
HOSTILE = [
    "<script>window.hacked = 1</script> please tell me",
    "<img src=x onerror='window.hacked = 1'> tell me",
    '" onmouseover="window.hacked = 1" x=" \' onclick=\'window.hacked = 1\'',
    "</script></title></style>--><script>window.hacked = 1</script>",
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 1} `${1}`",
    "\u202eesrever \u2066never closed \u202bright to left",
    "nul \x00 bell \x07 escape \x1b[31m zero \u200b width \ufeff",
    "line \u2028 paragraph \u2029 next \x85 end of it",
    "A" * 5000,
    "z" + "\u0301" * 300 + " piles of accents",
    "__proto__ constructor toString hasOwnProperty",
    "javascript:window.hacked=1 //--> <a href='javascript:window.hacked=1'>click</a>",
    "tags " + "".join(chr(0xE0000 + ord(letter)) for letter in "obey") + " filler \u3164 blank \u2800 selector a\ufe0f",
]
FONTS = "fonts-dejavu-core fonts-liberation"  # the packages of the fonts that are tested
FONT_CONFIG = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include>
<match target="pattern"><edit name="family" mode="assign" binding="strong"><string>{font}</string></edit></match>
</fontconfig>
"""
HOSTILE_SOURCE = "<b onmouseover=window.hacked=1>\u202esource_of_one_word_that_is_longer_than_a_telephone_is_wide"


def make_report(folder: Path) -> None:
    """Run all stages in `folder` on a small model."""
    rows = [row for row in sample_rows(700) if row["cluster"] != HOSTILE_CLUSTER]
    for number in range(SMALL_SOURCES):
        rows[number]["source"] = f"small/{number}"
    rows += [{"prompt": text, "source": HOSTILE_SOURCE, "cluster": HOSTILE_CLUSTER} for text in HOSTILE]
    rows += [{"prompt": f"of the target {text}", "source": HOSTILE_SOURCE, "cluster": TARGET} for text in HOSTILE]
    text = "\n".join(json.dumps({key: row[key] for key in ("prompt", "source", "cluster")}) for row in rows)
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
    save_small_model(folder / "lm")
    (folder / ".dvc").mkdir()  # where stages keep how long they took
    changes = {
        "data.path": "prompts.jsonl",
        "data.clusters": CLUSTERS,
        "split.test_fraction": 0.5,
        f"sae.variants.{VARIANT}": SAE,
        "sae.train": [VARIANT],
    }
    write_params(folder, SMALL | changes)
    run_stages(folder, stages_of(POINT, VARIANT))


@contextmanager
def started_browser(playwright: Any, font: str | None = None) -> Iterator[Any]:
    """Chromium, with the fonts of this machine, or with `font` for whatever a page asks for.

    Where Chromium or the font is missing the tests are skipped; with BROWSER_TESTS=required they fail.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        _missing("no Chromium is installed, so the report is not tested in a browser (Debian: apt install chromium)")
    with TemporaryDirectory() as folder:
        (Path(folder) / "fonts.conf").write_text(FONT_CONFIG.format(font=font))
        environment = os.environ | ({"FONTCONFIG_FILE": f"{folder}/fonts.conf"} if font else {})
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], env=environment)
        if font and _font_in_use(browser) != font:
            _missing(f"the font {font} is not installed, so pages are not tested with it (Debian: apt install {FONTS})")
        yield browser
        browser.close()


def _missing(what: str) -> NoReturn:
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(what)
    pytest.skip(what)


def _font_in_use(browser: Any) -> str:
    """The font that an ordinary text is really drawn with."""
    page = browser.new_page()
    page.set_content("<p style='font-family: system-ui'>text</p>")
    tools = page.context.new_cdp_session(page)
    for domain in ("DOM", "CSS"):
        tools.send(f"{domain}.enable")
    root = tools.send("DOM.getDocument")["root"]["nodeId"]
    text = tools.send("DOM.querySelector", {"nodeId": root, "selector": "p"})
    name: str = tools.send("CSS.getPlatformFontsForNode", {"nodeId": text["nodeId"]})["fonts"][0]["familyName"]
    page.close()
    return name


class Tab:
    """A page of the report in a window of its own, and all that it complains of."""

    def __init__(self, browser: Any, report: Path, *, width: int = 1280, scheme: str = "light") -> None:
        self.report = report
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.set_default_timeout(120_000)  # for machines that do other things as well
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._check(request.url))

    def _check(self, url: str) -> None:
        if not url.startswith((f"file://{self.report}/", "about:")):
            self.complaints.append(f"asks for {url}")

    def open(self, name: str) -> Any:
        """Open one of the pages, from the beginning, and wait until it has drawn what it loads."""
        self.page.goto("about:blank")
        self.page.goto(f"file://{self.report}/{name}")
        if "/latents.html" in name or "/prompts.html" in name:
            self.page.wait_for_selector("body[data-ready]")
        return self.page

    def is_broken(self) -> list[str]:
        """What is wrong with the page that is open."""
        wrong = list(self.complaints)
        if self.page.evaluate("typeof window.hacked !== 'undefined'"):
            wrong.append("a prompt's script ran")
        if self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wrong.append("wider than the window")
        return wrong

    def close(self) -> None:
        self.context.close()
