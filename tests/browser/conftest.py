"""Headless Chromium, once for all tests; each test has tabs, logs and storage of its own."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from ..live_desk import Desk, open_desk
from ..services import give_up
from .browser import Browser


def program(*names: str) -> str:
    """Where the first of these programs is; skips or fails the test where there is none."""
    for name in names:
        if found := shutil.which(name):
            return found
    give_up(f"none of {', '.join(names)} is installed: the tests of the page need Chromium and its driver")
    raise AssertionError("unreachable")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Generator[Chrome]:
    options = ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--force-device-scale-factor=1",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(program("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def desk(tmp_path: Path) -> Generator[Desk]:
    with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
def browser(chromium: Chrome) -> Generator[Browser]:
    """The browser with one empty tab; what a page logged, such as an error in its script, fails the test."""
    browser = Browser(chromium)
    yield browser
    complaints = browser.complaints()
    browser.reset()
    assert complaints == []
