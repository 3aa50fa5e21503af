"""Start a real Chromium, empty and on its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

from selenium import webdriver

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


def start(preferences: dict[str, int] | None = None) -> Iterator[webdriver.Chrome]:
    """One browser, ended when the generator is. Raises FileNotFoundError where Chromium is not installed."""
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
            return found
    raise FileNotFoundError(f"{names[0]} is not installed; Debian has it in the packages chromium and chromium-driver.")
