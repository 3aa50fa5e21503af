"""A real Chromium before the real server. CASK_URL=http://… takes a server that runs already."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.browser import chromiums
from tests.browser.page import Page

DESKTOP = (1280, 900)


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """Where the service answers."""
    return os.environ.get("CASK_URL", "").rstrip("/") or str(request.getfixturevalue("served_url"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """One browser for all tests; each opens the page anew."""
    yield from chromiums.start()


@pytest.fixture(scope="session")
def chromium_without_script() -> Iterator[webdriver.Chrome]:
    """A browser whose person has switched scripts off."""
    yield from chromiums.start({"profile.managed_default_content_settings.javascript": 2})


@pytest.fixture
def window(chromium: webdriver.Chrome, base_url: str) -> Iterator[Page]:
    """At desktop size, in light colours, with whatever page the test before left: for tests that go elsewhere first."""
    opened = Page(chromium, base_url)
    opened.resize(*DESKTOP)
    opened.prefer("light")
    opened.forget()
    yield opened
    opened.go_online()


@pytest.fixture
def page(window: Page) -> Page:
    """The page that tries an image, with nothing asked yet."""
    window.open()
    return window


@pytest.fixture
def plain_page(chromium_without_script: webdriver.Chrome, base_url: str) -> Page:
    """The same page without scripts."""
    opened = Page(chromium_without_script, base_url)
    opened.resize(*DESKTOP)
    opened.open_plain()
    return opened
