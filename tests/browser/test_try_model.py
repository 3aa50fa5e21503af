"""The page of a model with code in a real browser: its form, its answers, and what is wrong, for everybody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.browser import axe
from tests.browser.page import Page
from tests.browser.test_looks import PHONE
from tests.servers import ROOT, Server

DESKTOP = (1280, 900)
CONE = ROOT / "models" / "samples" / "cone.jpg"


@pytest.fixture
def window(chromium: webdriver.Chrome, coded: Server) -> Iterator[Page]:
    opened = Page(chromium, coded.url)
    opened.resize(*DESKTOP)
    opened.prefer("light")
    opened.driver.get(f"{opened.base_url}/capacity?lang=en")
    opened.forget()
    yield opened


def go(page: Page, path: str) -> None:
    page.driver.get(page.base_url + path)


def ask(page: Page) -> None:
    """Send the form, and wait for the page that comes of it."""
    page.script("window.isAsking = true")
    page.click(".model-form button[type=submit]")
    page.until(lambda: page.script("return !window.isAsking && document.readyState === 'complete'"), "the answer")


def tickets(page: Page) -> None:
    go(page, "/models/tickets")
    page.see("#field-1").send_keys("My parcel is late")
    top = page.see("#option-1")
    top.clear()
    top.send_keys("3")
    ask(page)
    page.see(".prediction")


def brightness(page: Page) -> None:
    go(page, "/models/brightness")
    page.see("#field-1").send_keys(str(CONE))
    page.see(".chosen-picture:not([hidden])")
    ask(page)
    page.see(".answer-picture")


def kinds(page: Page) -> None:
    go(page, "/models/kinds")


def wrong(page: Page) -> None:
    go(page, "/models/tickets")
    page.see("#field-1").send_keys(" ")
    # A browser keeps such a number back by itself.
    page.script("document.querySelector('#option-1').removeAttribute('max')")
    top = page.see("#option-1")
    top.clear()
    top.send_keys("9")
    ask(page)
    page.see(".field-error")


SCENES = (tickets, brightness, kinds, wrong)


def violations(page: Page) -> list[str]:
    found = []
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        found += [f"{scheme}: {each}" for each in axe.examine(page.driver).violations]
    page.prefer("light")
    return found


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_page_keeps_every_rule_and_fits_the_window(window: Page, scene, size: tuple[int, int]) -> None:
    window.resize(*size)
    go(window, "/capacity?lang=de" if size == PHONE else "/capacity?lang=en")

    scene(window)

    assert violations(window) == []
    assert window.script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert window.script("return document.documentElement.lang") == ("de" if size == PHONE else "en")


def test_labels_are_bars_and_the_same_question_stands_for_a_terminal(window: Page) -> None:
    tickets(window)

    assert [each.text for each in window.all(".prediction .row-label")] == ["shipping", "billing", "returns"]
    assert len(window.all(".prediction .bar")) == 3
    assert window.see("#field-1").get_attribute("value") == "My parcel is late"
    command = window.script("return document.querySelector('.panel .fold:last-child code').textContent")
    assert '{"text": "My parcel is late", "top": 3}' in command


def test_mask_is_a_picture_beside_the_one_that_was_sent(window: Page) -> None:
    brightness(window)

    sizes = window.script(
        "return [...document.querySelectorAll('#answer img')].map((each) => [each.naturalWidth, each.naturalHeight])"
    )
    assert sizes == [[480, 400], [64, 64]]
    assert {each.text for each in window.all(".found .row-label")} == {"dark", "bright"}


def test_fault_stands_at_its_field_which_has_the_focus(window: Page) -> None:
    wrong(window)

    assert window.script("return document.activeElement.id") == "option-1"
    assert "top is 9." in window.see("#option-1-error").text
    assert window.see("#option-1").get_attribute("aria-describedby") == "option-1-about option-1-error"


def test_fields_are_made_from_the_hints(window: Page) -> None:
    kinds(window)

    found = window.script(
        """return Object.fromEntries([...document.querySelectorAll('.model-form [name]')].map(
            ({name, tagName, type, required, min, max}) => [
                name, [tagName, type, required, min || "", max || ""].join(" ")]))"""
    )
    assert found == {
        "part.name": "INPUT text false  ",
        "part.count": "INPUT number true 0 9",
        "part.sides": "TEXTAREA textarea true  ",
        "part.note": "TEXTAREA textarea false  ",
        "number": "INPUT number true -1 1",
        "is_whole": "INPUT checkbox false  ",
        "colour": "SELECT select-one true  ",
        "matrix": "TEXTAREA textarea true  ",
        "file": "INPUT file true  ",
        "words": "TEXTAREA textarea true  ",
        "picture": "INPUT file false  ",
        "limit": "INPUT number false  ",
        "scale": "INPUT number false 0 10",
        "language": "SELECT select-one false  ",
        "is_loud": "INPUT checkbox false  ",
        "hint": "TEXTAREA textarea false  ",
    }


def test_form_of_every_kind_of_value_is_answered(window: Page, tmp_path) -> None:
    kinds(window)
    letter = tmp_path / "letter.txt"
    letter.write_text("ABC")
    for name, typed in (("part.name", "bolt"), ("part.count", "2"), ("number", "0.5"), ("file", str(letter))):
        window.see(f'[name="{name}"]').send_keys(typed)
    window.click('[name="is_loud"]')
    ask(window)

    document = window.script("return document.querySelector('#answer pre').textContent")
    assert '"name": "BOLT"' in document
    assert '"raw": "QUJD"' in document
