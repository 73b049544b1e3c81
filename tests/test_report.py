"""The report in a real browser, opened from disk: it works, no prompt runs anything, and contributions sum up."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL, run_stage, sample_rows, save_small_model, write_params
from stage_code import ROOT

from pipeline.report.page import verdict, visible

POINT, VARIANT = "resid_post.1", "batch_topk"
BROWSE = f"browse/{POINT}/{VARIANT}"
PAGES = ["index.html", "data.html", *(f"{BROWSE}/{name}.html" for name in ("sae", "latents", "prompts"))]
WIDTHS = (1280, 390)
TARGET = 3
HOSTILE_CLUSTER = 5  # no other prompts are of it, so the page of the prompt set shows these
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
]
HOSTILE_SOURCE = "<b onmouseover=window.hacked=1>\u202esource"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    rows = [row for row in sample_rows(700) if row["cluster"] != HOSTILE_CLUSTER]
    rows += [{"prompt": text, "source": HOSTILE_SOURCE, "cluster": HOSTILE_CLUSTER} for text in HOSTILE]
    rows += [{"prompt": f"of the target {text}", "source": HOSTILE_SOURCE, "cluster": TARGET} for text in HOSTILE]
    text = "\n".join(json.dumps({key: row[key] for key in ("prompt", "source", "cluster")}) for row in rows)
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
    save_small_model(folder / "lm")
    (folder / ".dvc").mkdir()  # where stages keep how long they took
    write_params(folder, SMALL | {"data.path": "prompts.jsonl", "split.test_fraction": 0.5})
    for stage in ("download", "filter", "split", "explore", "fetch_model", "extract"):
        run_stage(stage, folder)
    run_stage("train_sae", folder, POINT, VARIANT)
    run_stage("probe_text", folder)
    run_stage("probe_dense", folder, POINT)
    for stage in ("probe_sae", "intervene", "explain"):
        run_stage(stage, folder, POINT, VARIANT)
    run_stage("evaluate", folder)
    run_stage("report", folder)
    return folder / "report"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing = "no Chromium is installed, so the report is not tested in a browser (Debian: apt install chromium)"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


class Tab:
    """A page of the report in a window of its own, and all that it complains of."""

    def __init__(self, browser: Any, report: Path, *, width: int = 1280, scheme: str = "light") -> None:
        self.report = report
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
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


@pytest.fixture
def tab(browser: Any, report: Path) -> Iterator[Tab]:
    opened = Tab(browser, report)
    yield opened
    opened.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_from_disk_without_a_complaint(browser: Any, report: Path, name: str, width: int) -> None:
    tab = Tab(browser, report, width=width)
    page = tab.open(name)
    assert page.locator("h1").count() == 1
    page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")  # fails at a broken one
    for link in set(page.eval_on_selector_all("nav a, figure a", "links => links.map((link) => link.href)")):
        assert Path(link.removeprefix("file://")).is_file(), link
    assert tab.is_broken() == []
    tab.close()


def test_pages_follow_the_light_or_dark_scheme_and_print_without_controls(browser: Any, report: Path) -> None:
    def background(scheme: str) -> str:
        tab = Tab(browser, report, scheme=scheme)
        colour: str = tab.open("index.html").evaluate("getComputedStyle(document.body).backgroundColor")
        tab.close()
        return colour

    assert background("light") == "rgb(255, 255, 255)" and background("dark") == "rgb(22, 24, 29)"
    tab = Tab(browser, report)
    page = tab.open(f"{BROWSE}/latents.html")
    assert page.locator("header").is_visible() and page.locator("#controls").is_visible()
    page.emulate_media(media="print")
    assert not page.locator("header").is_visible() and not page.locator("#controls").is_visible()
    tab.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_prompts_run_nothing_and_break_nothing(browser: Any, report: Path, width: int) -> None:
    tab = Tab(browser, report, width=width)
    page = tab.open("data.html")
    examples = page.locator("h3", has_text="Privacy Violations").locator("xpath=following-sibling::ul[1]/li")
    assert examples.count() == 3
    page.mouse.move(200, 400)
    assert tab.is_broken() == []

    page = tab.open(f"{BROWSE}/prompts.html")
    page.select_option("#which", "all")
    page.fill("#search", HOSTILE_SOURCE)
    links = page.locator("#prompts tbody a")
    assert links.count() >= 6, "so many hostile prompts are in test"
    shown = set()
    for number in range(links.count()):
        link = links.nth(number)
        link.hover()
        link.click()
        page.wait_for_selector(f"#detail h2:text-is('Prompt {link.inner_text()}')")
        shown.add(page.locator("#tokens-sae .prompt").text_content())
        box = page.locator("#tokens-sae .prompt").bounding_box()
        assert box["height"] < 400, "a giant prompt scrolls in its frame"
        assert tab.is_broken() == []
    starts = ("<script>", "<img", '" on', "</script>", "{{ 7", "U+202E", "nul U+0000", "A" * 20, "javascript:")
    assert sum(any(start in text for start in starts) for text in shown) >= 3, "as they were written"
    assert page.locator("#detail script, #detail img, #prompts img, #prompts b").count() == 0

    page = tab.open(f"{BROWSE}/latents.html")
    for latent in range(0, 64, 4):
        page.fill("#number", str(latent))
        page.press("#number", "Enter")
        page.wait_for_selector(f"#detail h2:text-is('Latent {latent}')")
        assert tab.is_broken() == []
    tab.close()


def test_offensive_text_is_blurred_until_it_is_clicked(tab: Tab) -> None:
    page = tab.open(f"{BROWSE}/prompts.html")
    page.fill("#search", "of the target")

    def filters() -> set[str]:
        found: list[str] = page.eval_on_selector_all(
            "#prompts .offensive", "boxes => boxes.map((box) => getComputedStyle(box).filter)"
        )
        return set(found)

    blurred = filters()
    assert len(blurred) == 1 and blurred.pop().startswith("blur")
    first = page.locator("#prompts .offensive").first
    first.click()
    assert first.evaluate("box => getComputedStyle(box).filter") == "none" and len(filters()) == 2
    second = page.locator("#prompts .offensive").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    assert second.evaluate("box => getComputedStyle(box).filter") == "none"
    page.click("#reveal")
    assert filters() == {"none"}
    page = tab.open("data.html")
    assert page.locator("li.offensive").first.evaluate("box => getComputedStyle(box).filter") == "none", "remembered"
    page.click("#reveal")
    assert page.locator("li.offensive").first.evaluate("box => getComputedStyle(box).filter").startswith("blur")


def column(page: Any, table: str, number: int) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map((row) => row.cells[{number}].textContent)"
    )
    return found


def test_latents_are_sorted_searched_and_opened_by_number(tab: Tab) -> None:
    page = tab.open(f"{BROWSE}/latents.html")
    assert len(column(page, "#latents", 0)) == 50 and "of 64 latents" in page.inner_text("#found")
    for name, number in (("density", 3), ("difference", 6)):
        page.click(f"#latents th button:text-is('{name}')")
        values = [float(text.removesuffix(" %")) for text in column(page, "#latents", number)]
        assert values == sorted(values, reverse=True) and len(set(values)) > 5
        page.click(f"#latents th button:text-is('{name}')")
        values = [float(text.removesuffix(" %")) for text in column(page, "#latents", number)]
        assert values == sorted(values)
        assert page.locator("th[aria-sort=ascending]").inner_text().startswith(name)
    everyone = set(column(page, "#latents", 0))
    page.click("#more")
    assert len(column(page, "#latents", 0)) > len(everyone)
    word = column(page, "#latents", 9)[0].split()[0]
    page.fill("#search", word)
    assert all(word.lower() in text.lower() for text in column(page, "#latents", 9))
    assert len(column(page, "#latents", 0)) >= 1
    page.fill("#number", "9999")
    page.press("#number", "Enter")
    page.wait_for_selector("#detail:has-text('There is no latent 9999')")
    page.fill("#number", "12")
    page.press("#number", "Enter")
    page.wait_for_selector("#detail h2:text-is('Latent 12')")
    page.locator("#detail ul a").first.click()
    page.wait_for_selector("#detail h2:not(:text-is('Latent 12'))")
    assert tab.is_broken() == []


def test_a_latent_shows_its_examples_with_the_tokens_it_is_active_on(tab: Tab) -> None:
    page = tab.open(f"{BROWSE}/latents.html")
    data = json.loads((tab.report / BROWSE / "data/latents-0.js").read_text()[len('receive("latents-0",') : -3])
    latent = next(number for number, row in enumerate(data) if row["examples"])
    page.fill("#number", str(latent))
    page.press("#number", "Enter")
    page.wait_for_selector(f"#detail h2:text-is('Latent {latent}')")
    boxes = page.locator("#detail .prompt")
    assert boxes.count() == len(data[latent]["examples"])
    coloured = boxes.first.locator(".token[title]")
    strongest = max(float(coloured.nth(number).get_attribute("title")) for number in range(coloured.count()))
    assert strongest == pytest.approx(data[latent]["examples"][0][2], rel=0.06)


def test_tables_are_used_with_the_keyboard_alone(tab: Tab) -> None:
    page = tab.open(f"{BROWSE}/latents.html")
    page.locator("#latents tbody a").first.focus()
    page.keyboard.press("ArrowDown")
    second = page.locator("#latents tbody a").nth(1).inner_text()
    assert page.evaluate("document.activeElement.textContent") == second
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#detail h2:text-is('Latent {second}')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    assert page.evaluate("document.activeElement.textContent") == second


def test_contributions_sum_to_the_logit_that_gives_the_score(tab: Tab) -> None:
    page = tab.open(f"{BROWSE}/prompts.html")
    page.locator("#prompts tbody a").nth(3).click()
    page.wait_for_selector("#contributions")
    rows = dict(zip(column(page, "#contributions", 0), map(float, column(page, "#contributions", 1)), strict=True))
    logit = rows.pop("logit")
    assert sum(rows.values()) == pytest.approx(logit, abs=0.01) and "all other latents" in rows
    scores = dict(zip(column(page, "#scores", 0), column(page, "#scores", 1), strict=True))
    probability = float(scores[f"sae_{VARIANT} @ {POINT}"].split()[0])
    assert probability == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.01)
    for which in ("sae", "dense"):
        note = page.locator(f"#tokens-{which} .note").inner_text()
        tokens, constant, total = (float(text) for text in re.findall(r"[+-]?\d+\.\d+", note))
        assert tokens + constant == pytest.approx(total, abs=0.0025)
        titles = page.eval_on_selector_all(
            f"#tokens-{which} .token[title]", "spans => spans.map((span) => Number(span.title))"
        )
        assert sum(titles) == pytest.approx(tokens, abs=0.05)


def test_wrongly_classified_prompts_are_found(tab: Tab) -> None:
    page = tab.open(f"{BROWSE}/prompts.html")
    page.select_option("#which", "alarms")
    alarms = column(page, "#prompts", 3)
    assert alarms and all("✗" in score and float(score.split()[0]) >= 0.5 for score in alarms)
    assert "Toxicity & Hate Speech" not in column(page, "#prompts", 1)
    page.select_option("#which", "missed")
    assert set(column(page, "#prompts", 1)) <= {"Toxicity & Hate Speech"}
    assert all(float(score.split()[0]) < 0.5 for score in column(page, "#prompts", 3))
    page.select_option("#which", "benign")
    assert set(column(page, "#prompts", 1)) == {"harmless"}


def test_characters_that_cannot_be_seen_are_named() -> None:
    assert visible("a\x00b\u202ec\n\td é 👩‍👧") == "a<U+0000>b<U+202E>c\n\td é 👩‍👧"


def test_the_answer_says_no_more_than_the_interval_allows() -> None:
    assert verdict({"low": 0.001, "high": 0.1}) == "better than"
    assert verdict({"low": -0.1, "high": -0.001}) == "worse than"
    assert verdict({"low": -0.001, "high": 0.1}) == verdict({"low": 0.0, "high": 0.0}) == "not shown to differ from"


def test_the_defaults_that_a_run_is_compared_with_are_those_of_params_yaml() -> None:
    default = ROOT / "pipeline/params/default.yaml"
    assert default.read_bytes() == (ROOT / "params.yaml").read_bytes(), f"copy params.yaml to {default}"


def test_the_front_page_names_params_that_differ_from_the_default(report: Path) -> None:
    page = (report / "index.html").read_text()
    page = re.sub(r"</?code>", "", page)
    assert "split.test_fraction = 0.5" in page and "data.source = local" in page
    assert "probe.target =" not in page
    assert "prompts kept" in page
    here = (report / "data/here.js").read_text()
    assert "tokens/s" in here and "tokens/s" not in page, "apart, since the page is the same in every run of a commit"
