"""What the page says when something is not as it should be, and that it goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bad_input
from tests.browser.page import Page

WITH_A_FILE = [case for case in bad_input.cases(33_554_432) if case.image is not None]

# The engine is replaced for the first two questions; everything else is the real server.
AWAY_TWICE = """
  const real = window.fetch;
  let left = 2;
  window.fetch = (address, options) => {
    if (options?.method !== "POST" || left-- <= 0) return real(address, options);
    const problem = {
      title: "The engine is away", status: 503, detail: "No engine listens.", code: "engine_away",
      hint: "It is starting.", request_id: "0123456789",
    };
    return Promise.resolve(new Response(JSON.stringify(problem), {
      status: 503, headers: { "Content-Type": "application/problem+json", "Retry-After": "1" },
    }));
  };
"""
HELD_UNTIL_TOLD = """
  const real = window.fetch;
  window.fetch = (address, options) => options?.method === "POST"
    ? new Promise((resolve) => { window.letGo = () => resolve(real(address, options)); })
    : real(address, options);
"""


def test_empty_state_says_how_to_begin(page: Page) -> None:
    page.see("#answer h2", "No image yet")
    page.see("#engine", "Ready")
    assert not page.all("#stage .box")


def test_working_state_shows_picture_and_progress(page: Page) -> None:
    page.script(HELD_UNTIL_TOLD)

    page.take_sample()

    page.see("#answer .is-working h2", "Working")
    page.see(".progress")
    page.see("#stage .frame img")
    page.script("letGo()")
    page.see_boxes()
    assert not page.all(".progress")[0].is_displayed()


@pytest.mark.parametrize("case", WITH_A_FILE, ids=lambda case: case.name)
def test_refused_picture_shows_message_and_hint_and_the_next_is_answered(
    page: Page, tmp_path: Path, case: bad_input.BadInput
) -> None:
    path = tmp_path / f"{case.name}.jpg"
    path.write_bytes(case.image or b"")

    page.choose(path)

    notice = page.see("#answer .notice.is-bad")
    # A server may cut the connection in the middle of a body that is too large; the page then has words of its own.
    codes = {case.code, "connection_closed"} if case.name == "body_too_large" else {case.code}
    assert notice.find_element("css selector", ".code code").text in codes
    assert notice.find_element("css selector", ".message").text
    assert notice.find_element("css selector", ".hint").text
    page.take_sample()
    assert page.see_boxes()


def test_a_refused_picture_leaves_the_others_alone(page: Page, tmp_path: Path) -> None:
    good = page.save_samples(tmp_path)[0]
    letter = tmp_path / "letter.jpg"
    letter.write_text("This is a letter, not a picture.")

    page.choose(good, letter)

    page.see('.frame-button[aria-label^="letter.jpg: refused"]')
    assert page.see_boxes()


def test_a_wrong_limit_is_refused_with_the_words_of_the_api(page: Page) -> None:
    page.take_sample()
    page.see_boxes()

    page.set("score_threshold", "7")
    assert "score_threshold" in page.see("#answer .is-bad .message").text
    page.set("score_threshold", "0.4")

    assert page.see_boxes()


def test_nothing_found_offers_a_lower_threshold(page: Page) -> None:
    page.take_sample()
    page.see_boxes()
    page.set("score_threshold", "1")
    page.see("#answer .notice", "Nothing found")

    page.click("#answer .notice button", "Lower the threshold to 50%")

    assert page.see_boxes()
    assert page.see("#option-score_threshold").get_attribute("value") == "0.5"


def test_engine_away_is_said_and_the_answer_comes_by_itself(page: Page) -> None:
    page.script(AWAY_TWICE)

    page.take_sample()

    notice = page.see("#answer .notice.is-waiting", "Trying again")
    assert "The engine is away" in notice.text
    assert "It is starting." in notice.text
    assert page.see_boxes()


def test_try_now_does_not_wait(page: Page) -> None:
    page.script(AWAY_TWICE.replace('"1"', '"60"').replace("left = 2", "left = 1"))
    page.take_sample()

    page.click("#answer .notice button", "Try now")

    assert page.see_boxes()


def test_lost_network_is_said_and_the_answer_comes_when_it_is_back(page: Page, tmp_path: Path) -> None:
    path = page.save_samples(tmp_path)[0]
    page.go_offline()

    page.choose(path)
    page.see("#answer .notice.is-waiting", "The server cannot be reached")
    page.go_online()

    assert page.see_boxes()


def test_dropping_text_is_answered_with_words(page: Page) -> None:
    page.script("document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: new DataTransfer(), bubbles: true}))")

    page.see("#trouble", "no file")
    page.take_sample()
    page.see_boxes()
    assert not page.all("#trouble")[0].is_displayed()


def test_a_screen_reader_is_told_what_was_found(page: Page) -> None:
    page.take_sample()
    labels = page.see_boxes()

    told = page.script("return document.getElementById('announcement').textContent")

    assert told.startswith(f"{page.sample_names()[0]}: {len(labels)} object")


def test_a_page_whose_scripts_were_cut_off_loads_itself_again(window: Page) -> None:
    """As when the machine's network changes under it: a container starts, a notebook wakes up."""
    blocked = {"urls": ["*/js/page.js", "*/css/theme.css"]}
    window.driver.execute_cdp_cmd("Network.enable", {})
    window.driver.execute_cdp_cmd("Network.setBlockedURLs", blocked)
    try:
        window.open_plain()
        window.until(lambda: window.script("return sessionStorage.getItem('reloads')"), "the page to notice")
    finally:
        window.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})

    window.see("#answer .labels")
    window.until(lambda: window.script("return sessionStorage.getItem('reloads') === null"), "the count to begin anew")


def test_a_page_whose_scripts_never_come_rests_after_three_times(window: Page) -> None:
    window.driver.execute_cdp_cmd("Network.enable", {})
    window.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/js/page.js"]})
    try:
        window.open_plain()
        window.until(lambda: window.script("return sessionStorage.getItem('reloads')") == "3", "the third time")
        # It would have loaded again after a second.
        window.until(lambda: window.script("return performance.now()") > 2500, "a page that stays")
        assert window.script("return sessionStorage.getItem('reloads')") == "3"
    finally:
        window.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        window.script("sessionStorage.clear()")
