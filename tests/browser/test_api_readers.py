"""Swagger UI and Redoc in a real browser, from this server alone and under its Content-Security-Policy."""

from __future__ import annotations

import pytest
from selenium import webdriver

from tests.browser.page import Page

# Redoc asks for its maker's logo and adds a style sheet for scroll bars that it does not use here; both are refused.
EXPECTED_OF_REDOC = ("cdn.redoc.ly/redoc/logo-mini.svg", "Applying inline style violates")
REFUSED = ("Content Security Policy", "Failed to load")


@pytest.fixture
def reader(chromium: webdriver.Chrome, base_url: str) -> Page:
    """A window whose earlier complaints are forgotten."""
    window = Page(chromium, base_url)
    window.resize(1280, 1400)
    window.open_plain()
    return window


def refused(reader: Page) -> list[str]:
    """What the browser did not load or run since it was asked last."""
    return [message for message in reader.console() if any(words in message for words in REFUSED)]


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

    for form in forms:
        form.find_element("css selector", "button").click()

    for form, words in zip(forms, ("Welcome", "site-safety", "predictions", "detections", "Welcome"), strict=True):
        reader.until(lambda form=form, words=words: words in form.find_element("css selector", "output").text, words)
    assert refused(reader) == []
    assert reader.overflow() == 0
