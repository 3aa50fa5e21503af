"""The page with scripts switched off: a plain form, boxes drawn by the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bad_input
from tests.browser.page import Page

OF_THE_PICTURE = [case for case in bad_input.cases(1) if case.image is not None and case.name != "body_too_large"]


def ask(page: Page, *paths: Path) -> None:
    page.choose(*paths)
    page.see(".plain-ask button", "Ask").click()


def test_form_answers_with_boxes_over_the_picture(plain_page: Page, tmp_path: Path) -> None:
    paths = plain_page.save_samples(tmp_path)[:2]

    ask(plain_page, *paths)

    plain_page.see(".answered svg .box")
    assert len(plain_page.all('.answered img[src^="data:image/jpeg"]')) == 2
    assert [each.text for each in plain_page.all(".answered .picture-name")] == [path.name for path in paths]
    assert not plain_page.console()


def test_a_sample_is_answered_with_one_press(plain_page: Page) -> None:
    plain_page.take_sample()

    plain_page.see(".answered svg .tag")


def test_a_picture_is_named(plain_page: Page) -> None:
    plain_page.task("classify")
    plain_page.take_sample()

    plain_page.see(".answered .summary", "Most likely")
    assert plain_page.see('label:has([value="classify"]:checked)')


def test_limits_are_kept_in_the_form(plain_page: Page) -> None:
    plain_page.set("score_threshold", "1")
    plain_page.take_sample()

    plain_page.see(".answered .notice", "Nothing found")
    assert plain_page.see("#option-score_threshold").get_attribute("value") == "1"


@pytest.mark.parametrize("case", OF_THE_PICTURE, ids=lambda case: case.name)
def test_refused_picture_shows_message_and_hint_and_the_next_is_answered(
    plain_page: Page, tmp_path: Path, case: bad_input.BadInput
) -> None:
    path = tmp_path / f"{case.name}.jpg"
    path.write_bytes(case.image or b"")

    ask(plain_page, path)

    notice = plain_page.see(".answered .notice.is-bad", case.code)
    assert notice.find_element("css selector", ".hint").text
    plain_page.take_sample()
    plain_page.see(".answered svg .box")


def test_asking_without_a_file_leads_to_a_page_with_a_way_back(plain_page: Page) -> None:
    plain_page.see(".plain-ask button", "Ask").click()

    plain_page.see(".failure h1", "No image was sent")
    plain_page.see(".failure a", "Try an image").click()
    plain_page.see("h1", "Try an image")
    assert plain_page.driver.current_url == f"{plain_page.base_url}/"


def test_nothing_that_needs_a_script_is_shown(plain_page: Page) -> None:
    assert not [each for each in plain_page.all(".with-script") if each.is_displayed()]
    assert plain_page.see("input[type=file]")
