"""The pages of jobs before people: a job is started, its bar moves, it is cancelled; with and without scripts."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.browser.page import Page
from tests.browser.test_looks import CONTRAST, SIZES

# More than one page of results, which holds 100.
LONG = 110
# Enough to be seen under way by a page that comes again every few seconds.
SHORT = 30


@pytest.fixture
def page(window: Page) -> Page:
    """Each test goes to a page of its own."""
    return window


def go(page: Page, path: str = "/jobs") -> None:
    page.driver.get(page.base_url + path)
    page.console()


def leave(page: Page, *paths: Path) -> None:
    page.see("#pictures").send_keys("\n".join(map(str, paths)))
    page.click(".job-form button[type=submit]")
    page.see(".job-card")


def value(page: Page) -> int:
    """How far the bar is."""
    return int(page.script("return document.querySelector('progress').value"))


def see_done(page: Page) -> None:
    """Wait for the end of a job for as long as it gets on: on a busy machine many pictures take long."""
    count = ""
    while not page.all("[role=status] .is-succeeded"):
        count = page.until(lambda before=count: news(page, before), f"the job to get on from {count!r}")
    page.see("[role=status] .is-succeeded", "Done")


def news(page: Page, before: str) -> str:
    """How far the job is; empty while that is as before."""
    now = page.see(".job-count").text
    return "" if now == before else now


@pytest.fixture
def archive(tmp_path: Path, sample_path: Path) -> Path:
    """One that keeps the worker busy for a while."""
    return pack(tmp_path / "many.zip", sample_path, LONG)


def pack(path: Path, image: Path, count: int, broken: int = 0) -> Path:
    """An archive of so many copies of an image, and behind them files that are none, which cost no time."""
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(count + broken):
            packed.writestr(f"{number:03}.jpg", image.read_bytes() if number < count else b"no picture")
    return path


def test_job_is_started_from_the_page_and_its_bar_moves(page: Page, tmp_path: Path, sample_path: Path) -> None:
    go(page)
    leave(page, pack(tmp_path / "many.zip", sample_path, SHORT, LONG - SHORT))
    bar = page.see("progress")

    assert bar.get_attribute("max") == str(LONG)
    assert str(bar.get_attribute("aria-label")).startswith("Progress of job ")
    first = page.until(lambda: value(page), "a first result")
    page.until(lambda: value(page) > first, "the bar to move")
    assert page.script("return document.querySelector('progress') === arguments[0]", bar)
    see_done(page)
    page.see(".job-results tbody tr", "cone")
    assert len(page.all(".job-results tbody tr")) == 100
    page.click(".job-more a", "More results")
    page.see(".job-results tbody tr", "101")
    assert page.console() == []


def test_list_shows_every_job_and_cancels_one(page: Page, archive: Path, sample_path: Path) -> None:
    go(page)
    leave(page, sample_path)
    go(page)
    leave(page, archive)
    page.click(".job-back a")
    row = page.see(".job-row[data-open]")
    name = row.get_attribute("id")

    # The page has taken over news since it was opened: a person is asked once all the same.
    page.see(f"#{name} .job-state", "Running")
    first = page.until(lambda: value(page), "a first result")
    page.until(lambda: value(page) > first, "the bar to move")
    page.click(f"#{name} .job-remove button", "Cancel")
    page.driver.switch_to.alert.dismiss()
    assert page.see(f"#{name}")
    page.click(f"#{name} .job-remove button", "Cancel")
    page.driver.switch_to.alert.accept()
    page.until(lambda: not page.all(f"#{name}"), "the job to go")
    assert page.see(".job-row .job-state", "Done")
    assert page.console() == []


def test_open_page_hears_of_what_others_do(page: Page, sample_path: Path) -> None:
    go(page)
    before = len(page.all(".job-row"))
    window = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    go(page)
    leave(page, sample_path)
    page.driver.close()
    page.driver.switch_to.window(window)

    page.until(lambda: len(page.all(".job-row")) > min(before, 19), "the new job")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}px")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_are_readable(page: Page, sample_path: Path, size: tuple[int, int], scheme: str) -> None:
    page.resize(*size)
    page.prefer(scheme)
    go(page)
    texts = (".lede", ".job-hint", ".job-form label", ".button-main")
    contrasts = {selector: page.script(CONTRAST, page.see(selector)) for selector in texts}
    assert page.overflow() == 0

    leave(page, sample_path)
    page.see(".job-results tbody tr")
    page.see(".job-state.is-succeeded")
    more = (".job-state", ".job-count", ".job-figures dt", ".job-results thead th", ".job-results td")
    contrasts |= {selector: page.script(CONTRAST, page.see(selector)) for selector in more}

    assert page.overflow() == 0
    assert {selector: ratio for selector, ratio in contrasts.items() if ratio < 4.5} == {}


def test_keyboard_reaches_form_and_buttons(page: Page, sample_path: Path) -> None:
    go(page)
    leave(page, sample_path)
    page.click(".job-back a")
    page.see(".job-row")

    for selector in ("#pictures", "#model", ".button-main", ".job-name a", ".job-remove button"):
        page.tab_to(selector)


def test_pages_speak_german(page: Page) -> None:
    go(page, "/jobs?lang=de")
    try:
        assert page.see("h1").text == "Aufträge"
        assert page.see(".button-main").text == "Auftrag starten"
    finally:
        go(page, "/jobs?lang=en")


def test_job_without_scripts(plain_page: Page, tmp_path: Path, sample_path: Path) -> None:
    go(plain_page)
    leave(plain_page, pack(tmp_path / "few.zip", sample_path, SHORT))
    assert not plain_page.all("[role=status] .is-succeeded")

    # The page comes again by itself while the job is open.
    see_done(plain_page)
    plain_page.see(".job-results tbody tr", "cone")
    plain_page.click(".job-remove button", "Remove")
    plain_page.see(".job-form")


def test_form_that_holds_no_picture_is_told_so(plain_page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"no archive")
    go(plain_page)
    plain_page.see("#pictures").send_keys(str(broken))
    plain_page.click(".job-form button[type=submit]")

    plain_page.see("main", "The archive cannot be read")
