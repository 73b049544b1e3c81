"""Every page fits its window with any font: tested with the widest and the narrowest of those that desktops have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import PAGES, WIDTHS, Tab, started_browser

FONTS = {"widest": "DejaVu Sans Mono", "narrowest": "Liberation Sans Narrow"}


@pytest.fixture(scope="module", params=FONTS)
def browser(request: pytest.FixtureRequest, playwright: Any) -> Iterator[Any]:
    with started_browser(playwright, FONTS[request.param]) as started:
        yield started


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES, ids=lambda name: Path(name).stem)
def test_every_page_fits_its_window(browser: Any, report: Path, name: str, width: int) -> None:
    tab = Tab(browser, report, width=width)
    page = tab.open(name)
    assert tab.is_broken() == []
    if page.locator("#detail").count():
        for link in page.locator("tbody a").all()[:3]:
            link.click()
            page.wait_for_selector("#detail h2")
            assert tab.is_broken() == []
    tab.close()
