"""The report in a real browser, opened from disk: it works, no prompt runs anything, and contributions sum up."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import BROWSE, HOSTILE_SOURCE, PAGES, POINT, VARIANT, WIDTHS, Tab

from pipeline.core.text import visible
from pipeline.report.page import verdict


@pytest.fixture
def tab(browser: Any, report: Path) -> Iterator[Tab]:
    opened = Tab(browser, report)
    yield opened
    opened.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES, ids=lambda name: Path(name).stem)
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
    page.fill("#search", visible(HOSTILE_SOURCE)[:40])
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
    starts = ("<script>", "<img", '" on', "</script>", "{{ 7", "<U+202E>", "nul <U+0000>", "A" * 20, "javascript:")
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
    # 0.50 is what is shown of the largest ones
    assert all("✗" in score and float(score.split()[0]) <= 0.5 for score in column(page, "#prompts", 3))
    page.select_option("#which", "benign")
    assert set(column(page, "#prompts", 1)) == {"harmless"}


def test_the_answer_says_no_more_than_the_interval_allows() -> None:
    assert verdict({"low": 0.001, "high": 0.1}) == "better than"
    assert verdict({"low": -0.1, "high": -0.001}) == "worse than"
    assert verdict({"low": -0.001, "high": 0.1}) == verdict({"low": 0.0, "high": 0.0}) == "not shown to differ from"


def test_the_answer_of_a_declared_contrast_is_that_after_correction() -> None:
    clear = {"low": 0.001, "high": 0.1}
    assert verdict(clear | {"verdict": "not shown"}) == "not shown to differ from"
    assert verdict(clear | {"verdict": "better"}) == "better than" and verdict({"verdict": "worse"}) == "worse than"


def test_the_front_page_names_params_that_differ_from_the_default(report: Path) -> None:
    page = (report / "index.html").read_text()
    page = re.sub(r"</?code>", "", page)
    assert "split.test_fraction = 0.5" in page and "data.source = local" in page
    assert f"sae.variants.{VARIANT}.patience = None" in page, "though no default is called so"
    assert "probe.target =" not in page
    assert "prompts kept" in page
    here = (report / "data/here.js").read_text()
    assert "tokens/s" in here and "tokens/s" not in page, "apart, since the page is the same in every run of a commit"
