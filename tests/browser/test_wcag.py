"""Every page and what it shows on the way, before axe-core: no violation of WCAG 2.2 A or AA, in light and dark, in
German and English. Swagger UI and Redoc are left out: their markup is not ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from app.models import builds, manifests
from app.models.builds import Report
from tests import servers
from tests.browser import axe, chromiums
from tests.browser.page import Page
from tests.browser.test_looks import CONTRAST, PHONE
from tests.servers import ROOT, Server
from tests.unit.test_capacity_page import FOUND
from tests.unit.test_models_page import CANDIDATES

DESKTOP = (1280, 900)
STILL = {"name": "prefers-reduced-motion", "value": "reduce"}
# Every page has something for each of these: where one is not among what was kept, axe has not looked.
SURELY_KEPT = {"color-contrast", "document-title", "html-has-lang", "link-name"}
LEAST = 4.5
# For a rule that the page breaks on purpose.
BREAK = """
  document.querySelector('h1').style.color = 'color-mix(in srgb, CanvasText 20%, Canvas)';
  document.querySelector('.brand img').removeAttribute('alt');
"""

Scene = Callable[[Page, Path], None]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A service that asks who is there, with a report of each model and a measured capacity to show."""
    with servers.running("test", AUTHENTICATION="required") as server:
        for manifest in manifests.find(ROOT / "models"):
            fields: dict[str, Any] = {
                "processor": builds.processor(),
                "versions": builds.versions(),
                "truth": "objects",
            }
            report = Report(manifest.key, manifest.digest, images=100, candidates=CANDIDATES, **fields)
            builds.write(builds.folder(server.state_dir, manifest), report)
        (server.state_dir / "capacity.json").write_text(json.dumps(FOUND))
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """A browser without cookies of others."""
    yield from chromiums.start()


@pytest.fixture
def page(browser: webdriver.Chrome, guarded: Server) -> Page:
    """At desktop size, with nobody signed in."""
    window = Page(browser, guarded.url)
    window.resize(*DESKTOP)
    window.forget_cookies()
    return window


@pytest.fixture(scope="module")
def session(browser: webdriver.Chrome, guarded: Server) -> list[dict[str, Any]]:
    """The cookies of somebody who has signed in by the form."""
    page = Page(browser, guarded.url)
    go(page, "/sign-in")
    page.see("#token").send_keys(guarded.token + Keys.ENTER)
    page.see(".account-name")
    cookies: list[dict[str, Any]] = browser.get_cookies()
    return cookies


@pytest.fixture
def signed_in(session: list[dict[str, Any]], page: Page) -> Page:
    """The same window, with that person in front of it."""
    for cookie in session:
        known = {name: cookie[name] for name in ("name", "value", "path", "httpOnly")}
        page.driver.execute_cdp_cmd("Network.setCookie", {**known, "url": page.base_url})
    return page


def go(page: Page, path: str) -> None:
    page.driver.get(page.base_url + path)
    page.see("h1")


def try_image(page: Page, path: Path) -> None:
    go(page, "/")
    page.see("#answer .labels")


def boxes(page: Page, path: Path) -> None:
    try_image(page, path)
    page.take_sample()
    page.see_boxes()
    for fold in page.all("#answer .fold summary"):
        fold.click()
    page.see(".limits summary").click()


def overlay(page: Page, path: Path) -> None:
    try_image(page, path)
    page.task("classify")
    page.take_sample()
    page.see("#answer .prediction")
    page.see(".tick").click()
    page.see("#stage .overlay")


def several(page: Page, path: Path) -> None:
    """Two pictures and a letter, which is refused."""
    try_image(page, path)
    letter = path / "letter.jpg"
    letter.write_text("This is a letter, not a picture.")
    page.choose(*sorted((ROOT / "models" / "samples").glob("*.jpg"))[:2], letter)
    page.until(lambda: len(page.all(".badge.is-bad")) == 1, "the refused one")
    page.until(lambda: not page.all(".badge.is-waiting:not([hidden])"), "the others")


def refused(page: Page, path: Path) -> None:
    try_image(page, path)
    letter = path / "letter.jpg"
    letter.write_text("This is a letter, not a picture.")
    page.choose(letter)
    page.see("#answer .notice.is-bad")


def leave(page: Page, path: Path) -> None:
    go(page, "/jobs")
    letter = path / "letter.jpg"
    letter.write_text("This is a letter, not a picture.")
    page.see("#pictures").send_keys(f"{next((ROOT / 'models' / 'samples').glob('*.jpg'))}\n{letter}")
    page.click(".job-form button[type=submit]")


def job(page: Page, path: Path) -> None:
    """One that has ended, with a picture that failed."""
    leave(page, path)
    page.see(".job-results tbody tr")
    page.until(lambda: len(page.all(".job-results tbody tr")) == 2, "both results")


def jobs(page: Page, path: Path) -> None:
    leave(page, path)
    page.click(".job-back a")
    page.see(".job-row")


def models(page: Page, path: Path) -> None:
    go(page, "/models")
    page.see(".badge-chosen")


def capacity(page: Page, path: Path) -> None:
    go(page, "/capacity")
    page.see(".capacity-rate")


def calls(page: Page, path: Path) -> None:
    go(page, "/api")
    page.click("form.call button")
    page.until(lambda: page.all("form.call output")[0].text, "a reply")


def nowhere(page: Page, path: Path) -> None:
    go(page, "/nowhere")


SCENES = (try_image, boxes, overlay, several, refused, jobs, job, models, capacity, calls, nowhere)


def violations(page: Page, name: str) -> list[str]:
    """What axe has to say of the page as it is, in light and in dark colours. What it cannot decide is the contrast of
    text before a picture or below another element; that is measured here.
    """
    said = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}, STILL]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        report = axe.examine(page.driver)
        assert set(report.passed) >= SURELY_KEPT - {each.rule for each in report.violations}
        open_ones = [each for each in report.undecided if each.rule != "color-contrast" or contrast(page, each) < LEAST]
        said += [f"{name}, {scheme}: {each}" for each in report.violations + open_ones]
    return said


def contrast(page: Page, finding: axe.Finding) -> float:
    # axe writes names of SVG's elements as HTML does, and selectors tell them apart.
    element = page.driver.find_element("css selector", finding.where.replace("foreignobject", "foreignObject"))
    return float(page.script(CONTRAST, element))


@pytest.mark.parametrize("language", ["de", "en"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_page_keeps_every_rule(signed_in: Page, tmp_path: Path, scene: Scene, language: str) -> None:
    go(signed_in, f"/capacity?lang={language}")

    scene(signed_in, tmp_path)

    assert signed_in.script("return document.documentElement.lang") == language
    assert signed_in.all(".account-name")
    assert violations(signed_in, scene.__name__) == []


@pytest.mark.parametrize("language", ["de", "en"])
def test_form_of_sign_in_keeps_every_rule(page: Page, language: str) -> None:
    go(page, f"/sign-in?lang={language}")
    fresh = violations(page, "sign_in")
    page.see("#token").send_keys("cask_wrong" + Keys.ENTER)
    page.see("[role=alert]")

    assert fresh + violations(page, "sign_in, refused") == []


@pytest.mark.parametrize("scene", [boxes, job, models, capacity], ids=lambda scene: scene.__name__)
def test_page_on_a_phone_keeps_every_rule(signed_in: Page, tmp_path: Path, scene: Scene) -> None:
    signed_in.resize(*PHONE)

    scene(signed_in, tmp_path)

    assert violations(signed_in, scene.__name__) == []


def test_page_made_by_the_server_alone_keeps_every_rule(signed_in: Page) -> None:
    """Drawn while the browser runs no script; axe itself needs them again."""
    page = signed_in
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        go(page, "/")
        page.take_sample()
        page.see(".answered svg .tag")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert violations(page, "without scripts") == []


def test_capacity_that_nobody_measured_keeps_every_rule(page: Page, base_url: str) -> None:
    page.driver.get(f"{base_url}/capacity")
    page.see(".code-block")

    assert violations(page, "capacity not measured") == []


def test_axe_would_find_what_is_wrong(page: Page) -> None:
    go(page, "/sign-in")
    page.script(BREAK)

    found = {each.rule for each in axe.examine(page.driver).violations}

    assert {"color-contrast", "image-alt"} <= found
