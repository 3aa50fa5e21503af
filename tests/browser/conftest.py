"""A real Chromium before the real server. CASK_URL=http://… takes a server that runs already."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.browser.page import Page

# The browser's own business with its maker's servers stays out of the tests; a sandbox needs more than CI gives.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP = (1280, 900)


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """Where the service answers."""
    return os.environ.get("CASK_URL", "").rstrip("/") or str(request.getfixturevalue("served_url"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """One browser for all tests; each opens the page anew."""
    yield from _browser()


@pytest.fixture(scope="session")
def chromium_without_script() -> Iterator[webdriver.Chrome]:
    """A browser whose person has switched scripts off."""
    yield from _browser({"profile.managed_default_content_settings.javascript": 2})


@pytest.fixture
def page(chromium: webdriver.Chrome, base_url: str) -> Iterator[Page]:
    """The page at desktop size, in light colours, with nothing asked yet."""
    opened = Page(chromium, base_url)
    opened.resize(*DESKTOP)
    opened.prefer("light")
    opened.open()
    yield opened
    opened.go_online()


@pytest.fixture
def plain_page(chromium_without_script: webdriver.Chrome, base_url: str) -> Page:
    """The same page without scripts."""
    opened = Page(chromium_without_script, base_url)
    opened.resize(*DESKTOP)
    opened.open_plain()
    return opened


def _browser(preferences: dict[str, int] | None = None) -> Iterator[webdriver.Chrome]:
    folder = tempfile.mkdtemp(prefix="cask-chromium-")
    driver = webdriver.Chrome(options=_options(folder, preferences), service=_service())
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(folder, ignore_errors=True)


def _options(folder: str, preferences: dict[str, int] | None) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if preferences:
        options.add_experimental_option("prefs", preferences)
    return options


def _service() -> webdriver.ChromeService:
    # Given, because selenium would otherwise look for a driver on the internet.
    return webdriver.ChromeService(_program("chromedriver"))


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return str(Path(found))
    pytest.fail(f"{names[0]} is not installed; Debian has it in the packages chromium and chromium-driver.")
