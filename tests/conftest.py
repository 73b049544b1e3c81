"""The same process settings for the tests as for the stages, before anything imports torch; what many tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import make_report, started_browser
from small_run import make_small_run

import pipeline.stages  # noqa: F401


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which tests leave as it is: those that change something work in a copy."""
    return make_small_run(tmp_path_factory.mktemp("small_run"))


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Any) -> Iterator[Any]:
    with started_browser(playwright) as started:
        yield started
