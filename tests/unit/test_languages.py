"""Pages in German and English: which is chosen, what is remembered, and how numbers are written."""

from __future__ import annotations

import html
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app.errors import EngineAwayError
from app.pages import languages
from tests import fakes
from tests.fakes import FakeEngine

GERMAN = {"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}
PAGES = ("/", "/models", "/api")


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> FlaskClient:
    return fakes.make_app(tmp_path, engine).test_client()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_speaks_the_language_of_the_browser(client: FlaskClient, path: str) -> None:
    german, english = client.get(path, headers=GERMAN), client.get(path)

    assert '<html lang="de">' in german.text
    assert "Zum Inhalt springen" in german.text
    assert '<html lang="en">' in english.text
    assert "Skip to the content" in english.text
    assert {"Accept-Language", "Cookie"} <= set(german.vary) & set(english.vary)


def test_an_unknown_language_is_answered_in_english(client: FlaskClient) -> None:
    assert '<html lang="en">' in client.get("/?lang=tlh", headers={"Accept-Language": "fr, *;q=0.1"}).text


@pytest.mark.parametrize(
    ("name", "value", "attribute"), [("lang", "de", 'lang="de"'), ("colours", "dark", 'data-colours="dark"')]
)
def test_a_choice_is_remembered(client: FlaskClient, name: str, value: str, attribute: str) -> None:
    chosen = client.get(f"/models?{name}={value}")
    later = client.get("/")

    assert f"<html {attribute}" in re.sub(r'<html lang="en" ', "<html ", chosen.text)
    assert f"{name}={value}; " in chosen.headers["Set-Cookie"]
    assert "SameSite=Lax" in chosen.headers["Set-Cookie"]
    assert attribute in later.text
    assert "Set-Cookie" not in later.headers


def test_a_cookie_of_nonsense_is_as_none(client: FlaskClient) -> None:
    client.set_cookie("colours", '"><script>')
    client.set_cookie("lang", "xx")

    page = client.get("/").text

    assert 'data-colours="auto" aria-current' in page
    assert '<html lang="en">' in page


def test_switches_lead_to_the_same_page_and_keep_its_options(client: FlaskClient) -> None:
    assert 'href="/models?page=2&amp;lang=de"' in client.get("/models?page=2").text
    # A form's answer cannot be asked for by its address.
    assert 'href="/?lang=de"' in client.post("/upload").text


def test_the_api_speaks_english_and_does_not_vary(client: FlaskClient) -> None:
    wrong = client.post("/v1/detect", headers=GERMAN)
    models = client.get("/v1/models?lang=de", headers=GERMAN)

    assert wrong.get_json()["title"] == "The Content-Type is not accepted"
    for response in (wrong, models):
        assert "Cookie" not in response.vary
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("de-AT,en;q=0.9", "de"),
        ("en-GB,de;q=0.9", "en"),
        ("fr,de-CH;q=0.8,en;q=0.7", "de"),
        ("de-DE,de;q=0.9,en;q=0.8,*;q=0.7", "de"),
        ("de_DE", "de"),
        ("de;q=0,en;q=0.1", "en"),
        ("en;q=0.9;q=0.8", "en"),
        ("zh-Hans-CN;q=0.5", "en"),
        ("*", "en"),
    ],
)
def test_region_of_a_language_does_not_put_it_behind_another(client: FlaskClient, accepted: str, language: str) -> None:
    page = client.get("/models", headers={"Accept-Language": accepted})

    assert f'<html lang="{language}"' in page.text


def test_a_failure_speaks_the_language_of_the_browser(client: FlaskClient, engine: FakeEngine) -> None:
    nowhere = client.get("/nowhere", headers={**GERMAN, "Accept": "text/html"})
    why = "The engine does not answer: it has not started, or is being replaced."
    engine.error = EngineAwayError(why, hint="Tell the operator of this service the request id.")
    away = client.post("/upload", headers=GERMAN, data={"image_upload": (io.BytesIO(fakes.picture()), "a.jpg")})

    assert "<h1>Unter dieser Adresse gibt es nichts</h1>" in nowhere.text
    assert "GET /nowhere: Unter dieser Adresse gibt es nichts." in nowhere.text
    assert "Accept-Language" in nowhere.vary
    assert "Der Rechenprozess antwortet nicht: er ist nicht gestartet oder wird gerade ersetzt." in away.text
    assert "Nennen Sie dem Betreiber dieses Dienstes die Anfrage-ID." in away.text
    assert away.status_code == 503


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Das Bild hat 0 Bytes."),
        (b"This is a letter.", "Die 17 Bytes sind kein Bild in einem angenommenen Format."),
        (fakes.picture(kind="GIF"), "Bytes sind kein Bild in einem angenommenen Format."),
    ],
)
def test_a_refused_picture_is_told_in_german(client: FlaskClient, data: bytes, words: str) -> None:
    page = client.post("/upload", headers=GERMAN, data={"image_upload": (io.BytesIO(data), "a.jpg")})

    assert words in page.text


def test_a_wrong_option_is_told_in_german(client: FlaskClient) -> None:
    form = {"image_upload": (io.BytesIO(fakes.picture()), "a.jpg"), "score_threshold": "1.5", "task": "detect"}

    page = html.unescape(client.post("/upload", headers=GERMAN, data=form).text)

    assert "score_threshold ist '1.5': erwartet wird höchstens 1." in page
    assert "Funde mit kleinerem Wert fallen weg." in page


def test_the_script_gets_its_words_and_those_of_the_service(client: FlaskClient) -> None:
    content = re.search(r'<meta name="words" content="([^"]*)">', client.get("/", headers=GERMAN).text)

    assert content
    words = json.loads(html.unescape(content[1]))
    assert words["own"]["Remove all"] == "Alle entfernen"
    assert words["own"]["%(num)s object"] == ["%(num)s Objekt", "%(num)s Objekte"]
    assert words["told"]["The image has 0 bytes."] == "Das Bild hat 0 Bytes."
    assert 'name="words"' not in client.get("/").text


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ("1,234.5", "97.3%", "Nov 20, 2026, 20:42 UTC")),
        ("de", ("1.234,5", "97,3\xa0%", "20.11.2026, 20:42 UTC")),
    ],
)
def test_numbers_and_moments_are_written_as_people_do(
    client: FlaskClient, language: str, expected: tuple[str, ...]
) -> None:
    with client.application.test_request_context(f"/?lang={language}"):
        moment = datetime(2026, 11, 20, 20, 42, tzinfo=UTC)

        assert (languages.number(1234.5, 1), languages.percent(0.973, 1), languages.moment(moment)) == expected


def test_a_sentence_within_a_sentence_is_told_too(client: FlaskClient) -> None:
    with client.application.test_request_context("/?lang=de"):
        assert languages.told("left out: NNCF is not installed") == "ausgelassen: NNCF ist nicht installiert"
        assert languages.told("agrees in 98.10%, at least 99.50% is needed").startswith("stimmt zu 98.10 % überein")
        assert languages.told("nobody knows this") == "nobody knows this"
