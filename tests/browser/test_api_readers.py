"""Swagger UI and Redoc in a real browser, from this server alone and under its Content-Security-Policy."""

from __future__ import annotations

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page
from tests.browser.test_looks import CONTRAST

# Redoc asks for its maker's logo and adds a style sheet for scroll bars that it does not use here; both are refused.
EXPECTED_OF_REDOC = ("cdn.redoc.ly/redoc/logo-mini.svg", "Applying inline style violates")
REFUSED = ("Content Security Policy", "Failed to load")


HEADING = {"docs": ".opblock-tag span", "redoc": "#reader h2"}
LEAST = 4.5


@pytest.fixture
def reader(chromium: webdriver.Chrome, base_url: str) -> Page:
    """A window whose earlier complaints are forgotten."""
    window = Page(chromium, base_url)
    window.resize(1280, 1400)
    window.open_plain()
    return window


def background(reader: Page) -> int:
    """How much red the page's background has."""
    return int(reader.script("return parseInt(getComputedStyle(document.body).backgroundColor.slice(4))"))


def refused(reader: Page) -> list[str]:
    """What the browser did not load or run since it was asked last."""
    return [message for message in reader.console() if any(words in message for words in REFUSED)]


@pytest.mark.parametrize("name", ["docs", "redoc"])
def test_reader_has_our_masthead_and_colours_and_fits(reader: Page, name: str) -> None:
    """The colours follow the system, and the switch in the footer comes first."""
    heading = HEADING[name]
    reader.prefer("dark")
    try:
        reader.driver.get(f"{reader.base_url}/{name}")
        reader.see(heading, "Predictions")
        reader.press(Keys.TAB)
        assert reader.driver.switch_to.active_element.text == "Skip to the content"
        assert background(reader) < 50
        assert reader.script(CONTRAST, reader.see(heading)) > LEAST
        for width in (390, 768, 1280):
            reader.resize(width, 900)
            assert reader.overflow() == 0, width

        reader.script("document.querySelector('.footer [data-colours=light]').click()")

        reader.until(lambda: background(reader) > 200, "light colours")
        reader.until(lambda: reader.script(CONTRAST, reader.see(heading)) > LEAST, "dark letters")
    finally:
        reader.prefer("light")
        reader.driver.delete_all_cookies()


def test_example_in_swagger_ui_runs(reader: Page) -> None:
    reader.driver.get(f"{reader.base_url}/docs#/Predictions/post_api_detect")
    reader.click(".opblock-body .try-out__btn")
    reader.see(".opblock-body textarea", "images")

    reader.click(".opblock-body .execute")

    reader.see(".live-responses-table .response-col_status", "200")
    reader.see(".live-responses-table .highlight-code", "detections")
    assert refused(reader) == []


def test_redoc_shows_every_address(reader: Page) -> None:
    reader.driver.get(f"{reader.base_url}/redoc")

    reader.see("h1", "Cask")
    reader.see("[id='operation/post_api_detect']", "Find objects in images")
    assert [each for each in refused(reader) if not any(words in each for words in EXPECTED_OF_REDOC)] == []


def test_json_rpc_page_sends_its_examples_and_shows_the_replies(reader: Page) -> None:
    reader.driver.get(f"{reader.base_url}/api")
    forms = reader.all("form.call")

    # One after the other: a busy machine may refuse some of five at once, rightly.
    for form, words in zip(forms, ("Welcome", "site-safety", "predictions", "detections", "Welcome"), strict=True):
        form.find_element("css selector", "button").click()
        reader.until(lambda form=form, words=words: words in form.find_element("css selector", "output").text, words)
    assert refused(reader) == []
    assert reader.overflow() == 0
