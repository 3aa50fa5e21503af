"""A person signs in, predicts, signs out, in a real browser before a service that asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests import servers
from tests.browser import chromiums
from tests.servers import Server

WAIT_SECONDS = 60
PERIOD_SECONDS = 0.05


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A service that lets in those only who have a token."""
    with servers.running("test", AUTHENTICATION="required") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """A browser without cookies of others."""
    yield from chromiums.start()


def wait_for(browser: webdriver.Chrome, selector: str) -> None:
    WebDriverWait(browser, WAIT_SECONDS, PERIOD_SECONDS).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, selector)
    )


def test_person_signs_in_predicts_and_signs_out(guarded: Server, browser: webdriver.Chrome, sample_path: Path) -> None:
    browser.get(f"{guarded.url}/models")
    wait_for(browser, "#token")
    # The field has the focus: type, and press enter.
    browser.switch_to.active_element.send_keys("cask_wrong" + Keys.ENTER)
    wait_for(browser, "[role=alert]")
    browser.switch_to.active_element.send_keys(guarded.token + Keys.ENTER)
    WebDriverWait(browser, WAIT_SECONDS, PERIOD_SECONDS).until(
        lambda driver: driver.current_url == f"{guarded.url}/models"
    )

    browser.get(f"{guarded.url}/")
    assert browser.find_element(By.CSS_SELECTOR, ".account-name").text == "tests"
    # The page's script asks the API with the session, and our own guard takes it for our own.
    wait_for(browser, "#answer .labels")
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(sample_path))
    answer = browser.find_element(By.ID, "answer")
    WebDriverWait(browser, WAIT_SECONDS, PERIOD_SECONDS).until(
        lambda _: "No image yet" not in answer.text and "cone" in answer.text
    )
    # Neither the token nor the session can be read by a script.
    assert "cask" not in browser.execute_script("return document.cookie")

    browser.find_element(By.CSS_SELECTOR, ".account button").click()
    wait_for(browser, "#token")
    browser.get(f"{guarded.url}/")
    wait_for(browser, "#token")
    assert browser.current_url == f"{guarded.url}/sign-in?next=/"


def test_form_is_in_the_language_of_the_browser_and_has_a_label(guarded: Server, browser: webdriver.Chrome) -> None:
    browser.get(f"{guarded.url}/sign-in?lang=de")
    assert browser.find_element(By.CSS_SELECTOR, "h1").text == "Anmelden"
    field = browser.find_element(By.ID, "token")
    assert field.accessible_name == "Token"
    browser.get(f"{guarded.url}/sign-in?lang=en")
    assert browser.find_element(By.CSS_SELECTOR, "h1").text == "Sign in"
