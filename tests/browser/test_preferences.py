"""Two languages, two colour schemes, the keyboard and a screen reader, on every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page
from tests.browser.test_looks import CONTRAST

PATHS = ("/", "/models", "/capacity", "/jobs", "/api", "/nowhere")
WIDTHS = (360, 768, 1280)
# Text that stands on every page; that of single pages has tests of its own.
TEXT = ("h1", ".places a", ".footer span", ".footer .switch a", ".footer .switch [aria-current]")


@pytest.fixture
def window(window: Page) -> Iterator[Page]:
    """With no preference remembered, before and after."""
    window.forget_cookies()
    yield window
    window.forget_cookies()


def visit(page: Page, path: str, **preferences: str) -> None:
    query = "&".join(f"{name}={value}" for name, value in preferences.items())
    page.driver.get(f"{page.base_url}{path}?{query}")
    page.see("h1")


def tree(page: Page) -> list[dict[str, Any]]:
    """What a screen reader is told."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [node for node in nodes if not node["ignored"]]


def background(page: Page) -> int:
    """How much red the page's background has."""
    return int(page.script("return parseInt(getComputedStyle(document.body).backgroundColor.slice(4))"))


@pytest.mark.parametrize("path", PATHS)
def test_every_page_fits_in_both_languages(window: Page, path: str) -> None:
    for language in ("de", "en"):
        for width in WIDTHS:
            window.resize(width, 800)
            visit(window, path, lang=language)

            assert window.overflow() == 0, (language, width)
            assert window.script("return document.documentElement.lang") == language


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_text_is_readable_on_every_page(window: Page, path: str, scheme: str) -> None:
    visit(window, path, colours=scheme)

    contrasts = {selector: window.script(CONTRAST, window.see(selector)) for selector in TEXT}

    assert {selector: ratio for selector, ratio in contrasts.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("path", PATHS)
def test_a_screen_reader_finds_its_way(window: Page, path: str) -> None:
    visit(window, path, lang="de")
    nodes = tree(window)

    roles = Counter(node["role"]["value"] for node in nodes)
    levels = window.script("return [...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
    pictures = window.script("return [...document.images].filter((each) => !each.hasAttribute('alt')).length")
    controls = ("button", "link", "radio", "checkbox", "slider", "spinbutton", "combobox", "textbox")
    unnamed = [n for n in nodes if n["role"]["value"] in controls and not n.get("name", {}).get("value", "").strip()]

    assert (roles["banner"], roles["main"], roles["contentinfo"]) == (1, 1, 1)
    assert roles["navigation"] >= 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert pictures == 0
    assert unnamed == []


@pytest.mark.parametrize("path", PATHS)
def test_the_first_key_leads_past_the_navigation(window: Page, path: str) -> None:
    visit(window, path, lang="de")

    window.press(Keys.TAB)
    skip = window.driver.switch_to.active_element
    assert skip.text == "Zum Inhalt springen"
    assert skip.rect["y"] >= 0
    window.press(Keys.ENTER)

    window.until(lambda: window.script("return document.activeElement.id") == "main", "the focus in the content")


@pytest.mark.parametrize("path", PATHS)
def test_no_control_holds_the_keyboard(window: Page, path: str) -> None:
    """From the first control to the switches at the end, and each shows that it has the focus."""
    visit(window, path, lang="en")
    seen = set()

    for _ in range(90):
        window.press(Keys.TAB)
        place = window.script("return [...document.querySelectorAll('*')].indexOf(document.activeElement)")
        if window.script("return document.activeElement.matches('.footer .switch:last-child a:last-child')"):
            break
        shown = window.script(
            "const e = document.activeElement; const near = e.closest('label') ?? e;"
            "return [e, near, e.closest('.choice label') ?? e].some((x) => getComputedStyle(x).outlineStyle !== 'none')"
        )
        assert shown, place
        seen.add(place)
    else:
        pytest.fail("90 tabs did not reach the last switch")

    assert len(seen) > 5


def test_the_language_is_chosen_with_a_link_and_remembered(page: Page) -> None:
    page.see('.footer [lang="de"]', "Deutsch").click()
    page.see("h1", "Bild ausprobieren")

    page.click(".places a", "Modelle")

    page.see("h1", "Modelle")
    page.see('.footer [lang="en"]', "English").click()
    page.see("h1", "Models")


def test_the_script_speaks_german_too(window: Page, tmp_path: Path) -> None:
    visit(window, "/", lang="de")
    window.see("#answer .labels")
    window.see("#engine", "Bereit")
    window.take_sample()
    labels = window.see_boxes()
    assert window.see("#answer h2").text == f"{len(labels)} Objekte"
    assert "," in window.all("#answer .row-score")[0].text
    assert "\u00a0%" in window.script("return document.querySelector('#answer .row-score').textContent")

    letter = tmp_path / "letter.jpg"
    letter.write_text("This is a letter.")
    window.choose(letter)

    notice = window.see("#answer .notice.is-bad", "Dieses Bildformat wird nicht angenommen")
    assert "Die 17 Bytes sind kein Bild in einem angenommenen Format." in notice.text
    assert window.console()[1:] == []


def test_colours_change_at_once_and_are_remembered(page: Page) -> None:
    page.take_sample()
    page.see_boxes()

    page.see('.footer [data-colours="dark"]').click()

    assert background(page) < 50
    # The page was not loaded anew: its picture is still there.
    assert page.see_boxes()
    visit(page, "/models")
    assert background(page) < 50
    page.see('.footer [data-colours="auto"]').click()
    assert background(page) > 200
    page.prefer("dark")
    assert background(page) < 50


def test_colours_are_chosen_with_the_keyboard(window: Page) -> None:
    visit(window, "/models", lang="en")
    window.script("document.querySelector('.footer [data-colours=light]').focus()")

    window.press(Keys.TAB, Keys.ENTER)

    window.until(lambda: background(window) < 50, "dark colours")
    assert window.see('.footer [aria-current="true"][data-colours]').text == "Dark"


def test_where_the_model_looked_lies_over_the_picture(page: Page) -> None:
    page.task("classify")
    page.take_sample()
    page.see("#answer .prediction")
    assert page.all("#stage .overlay") == []

    page.see(".tick").click()

    overlay = page.see("#stage .overlay")
    picture = page.see("#stage .frame img:not(.overlay)")
    assert overlay.rect == picture.rect
    assert (overlay.get_attribute("alt") or "").startswith("Where the model looked for ")
    page.see(".tick").click()
    page.until(lambda: not page.all("#stage .overlay"), "no overlay")


def test_preferences_work_without_scripts(plain_page: Page) -> None:
    plain_page.driver.delete_all_cookies()
    plain_page.open_plain()
    plain_page.see('.footer [lang="de"]').click()
    plain_page.see('.footer [data-colours="dark"]').click()

    plain_page.see("h1", "Bild ausprobieren")
    assert plain_page.all('html[data-colours="dark"]')
    plain_page.driver.delete_all_cookies()


def test_the_page_without_scripts_explains_too(plain_page: Page) -> None:
    plain_page.task("classify")
    plain_page.see(".tick").click()
    plain_page.take_sample()

    plain_page.see(".answered .overlay")
