"""The page as it stands before people: sizes, colours, keyboard, and who it talks to."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page

PHONE = (390, 844)
SIZES = [PHONE, (768, 1024), (1280, 900), (1920, 1080)]
TEXT = (
    "h1",
    ".lede",
    ".field > label",
    ".picture-size",
    ".summary",
    ".row-score",
    ".timing dt",
    ".model-facts",
    ".caveat",
)

# WCAG 2.2: relative luminance of text and of the nearest background behind it.
CONTRAST = """
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
  };
  const element = arguments[0];
  const [light, dark] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
"""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
def test_nothing_is_wider_than_the_window(page: Page, size: tuple[int, int]) -> None:
    page.resize(*size)
    assert page.overflow() == 0

    page.take_sample()
    page.see_boxes()
    for fold in page.all("#answer .fold summary"):
        fold.click()
    page.see(".limits summary").click()

    page.see("#answer .fold pre")
    assert page.overflow() == 0


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_models_fits_and_is_readable(page: Page, size: tuple[int, int], scheme: str) -> None:
    page.resize(*size)
    page.prefer(scheme)
    page.click(".places a", "Models")
    page.see(".model h2")

    texts = (".places a", ".places [aria-current]", ".model-state", ".model-figures dt", ".model-note")
    contrasts = {selector: page.script(CONTRAST, page.see(selector)) for selector in texts}

    assert page.overflow() == 0
    assert {selector: ratio for selector, ratio in contrasts.items() if ratio < 4.5} == {}


def test_the_answer_follows_the_picture_on_a_phone(page: Page) -> None:
    page.resize(*PHONE)
    page.take_sample()
    page.see_boxes()

    tops = [page.see(selector).rect["y"] for selector in ("#stage", "#answer", ".samples")]

    assert tops == sorted(tops)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_colour_schemes(page: Page, scheme: str) -> None:
    page.prefer(scheme)
    page.take_sample()
    page.see_boxes()

    red = page.script("return parseInt(getComputedStyle(document.body).backgroundColor.slice(4))")
    contrasts = {selector: page.script(CONTRAST, page.see(selector)) for selector in TEXT}
    tags = [page.script(CONTRAST, tag) for tag in page.all("#stage .tag")]

    assert red > 200 if scheme == "light" else red < 50
    assert {selector: ratio for selector, ratio in contrasts.items() if ratio < 4.5} == {}
    assert min(tags) >= 4.5


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    page.tab_to('[name="task"]')
    page.tab_to("#option-score_threshold")
    page.tab_to("#image_upload")
    page.tab_to(".sample")
    page.press(Keys.ENTER)
    page.see_boxes()

    page.script("document.getElementById('stage').querySelector('input').focus()")
    page.tab_to("#answer .row")
    assert len(page.all("#stage .box.is-chosen")) == 1
    page.tab_to("#answer .fold summary")
    page.press(Keys.ENTER)
    page.see("#answer .fold[open] code", "curl")


def test_the_task_changes_with_arrow_keys(page: Page) -> None:
    page.take_sample()
    page.see_boxes()
    page.script("document.activeElement.blur()")

    page.tab_to('[name="task"]')
    page.press(Keys.ARROW_RIGHT)

    page.see("#answer .prediction")


def test_the_focus_can_be_seen(page: Page) -> None:
    page.tab_to("#option-score_threshold")

    outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_control_has_a_name(page: Page) -> None:
    page.take_sample()
    page.see_boxes()

    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = ("button", "link", "radio", "slider", "spinbutton", "combobox", "textbox")
    shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in controls]

    assert len(shown) > 10
    assert [node for node in shown if not node["name"]["value"].strip()] == []


def test_no_request_leaves_our_server_and_nothing_is_complained_about(page: Page) -> None:
    page.driver.get(f"{page.base_url}/")
    page.see("#answer .labels")
    page.take_sample()
    page.see_boxes()
    page.task("classify")
    page.see("#answer .prediction")

    asked = page.requests()

    assert len(asked) > 10
    ours = (f"{page.base_url}/", f"blob:{page.base_url}/", "data:")
    assert [address for address in asked if not address.startswith(ours)] == []
    assert page.console() == []


def test_a_phone_offers_the_models_and_speaks_of_no_mouse(page: Page) -> None:
    page.resize(*PHONE)

    page.see("#model")
    assert page.see(".drop-title").text == "Choose one or several images"
    assert not any(words in page.see("#stage").text for words in ("Drop", "Pasting"))


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("width", [360, 390, 768])
def test_the_navigation_stands_in_one_row(window: Page, width: int, language: str) -> None:
    window.resize(width, 844)
    window.driver.get(f"{window.base_url}/models?lang={language}")
    rows = {round(link.rect["y"]) for link in window.all(".places a")}
    window.driver.get(f"{window.base_url}/models?lang=en")

    assert len(rows) == 1


def test_readers_of_the_description_are_in_the_navigation_and_lead_back(page: Page) -> None:
    page.click(".places a", "API")
    page.click(".readers a", "Redoc")
    assert page.see(".places [aria-current]").text == "API"
    page.click(".places a", "Images")

    page.see("h1", "Try an image")
