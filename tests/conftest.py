"""The same process settings for the tests as for the stages, before anything imports torch; what many tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc_project import Project, make_project
from once import made_once
from report_pages import make_report, started_browser
from small_run import make_small_run

import pipeline.stages  # noqa: F401


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished run, which tests leave as it is: those that change something work in a copy."""
    return made_once(tmp_path_factory, worker_id, "small_run", make_small_run)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return made_once(tmp_path_factory, worker_id, "report", make_report) / "report"


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project under DVC that has been run and committed, which tests leave as it is."""
    return Project(made_once(tmp_path_factory, worker_id, "dvc", make_project) / "project")


@pytest.fixture
def project(finished_project: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    shutil.copytree(finished_project.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Any) -> Iterator[Any]:
    with started_browser(playwright) as started:
        yield started
