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
from app.texts import Text
from app.web.middleware.accept_language import say
from app.web.pages import languages, stored_texts
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


def test_a_problem_document_speaks_the_language_that_is_asked_for(client: FlaskClient) -> None:
    german, english = client.post("/v1/detect", headers=GERMAN), client.post("/v1/detect")
    there, here = german.get_json(), english.get_json()

    assert there["title"] == "Dieser Content-Type wird nicht angenommen"
    assert there["detail"] == "Content-Type ist 'missing'."
    assert there["hint"].startswith("Verwenden Sie multipart/form-data mit Teilen")
    assert {name for name in here if there[name] != here[name]} == {"title", "detail", "hint", "request_id"}
    assert here["title"] == "The Content-Type is not accepted"
    for response, language in ((german, "de"), (english, "en")):
        assert response.headers["Content-Language"] == language
        assert "Accept-Language" in response.vary


@pytest.mark.parametrize("accepted", ["*", "fr", "fr, *;q=0.1", "*, de;q=0.5", "", ";;q=", "de;q=0"])
def test_a_problem_document_is_english_unless_german_is_asked_for(client: FlaskClient, accepted: str) -> None:
    answer = client.get("/v1/nothing", headers={"Accept-Language": accepted})

    assert answer.get_json()["title"] == "There is nothing at this address"
    assert answer.headers["Content-Language"] == "en"


def test_what_is_no_failure_has_no_language(client: FlaskClient) -> None:
    models = client.get("/v1/models?lang=de", headers=GERMAN)

    assert not {"Accept-Language", "Cookie"} & set(models.vary)
    assert "Set-Cookie" not in models.headers
    assert "Content-Language" not in models.headers


def test_logs_are_english_whatever_the_caller_reads(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "cask.web"):
        client.get("/v1/nothing", headers=GERMAN)

    assert "GET /v1/nothing: there is nothing at this address." in caplog.text
    assert "Adresse" not in caplog.text


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
        ("en;q=0, *", "de"),
        ("en;q=0.1, *", "de"),
        ("en-US;q=0, *", "en"),
        ("en;q=0, de;q=0, *", "en"),
        ("de;q=0, *;q=0.5", "en"),
        ("*;q=0", "en"),
        ("*;q=0.5, de-AT;q=0.6", "de"),
        ("de;q=inf, de;q=-1, en;q=nan", "en"),
        ("x-klingon, deu, -de", "en"),
        # Nobody reads so far.
        ("a," * 5000 + "de", "en"),
    ],
)
def test_region_of_a_language_does_not_put_it_behind_another(client: FlaskClient, accepted: str, language: str) -> None:
    page = client.get("/models", headers={"Accept-Language": accepted})

    assert f'<html lang="{language}"' in page.text


def test_a_failure_speaks_the_language_of_the_browser(client: FlaskClient, engine: FakeEngine) -> None:
    nowhere = client.get("/nowhere", headers={**GERMAN, "Accept": "text/html"})
    why = Text("it has not started, or is being replaced")
    hint = "Tell the operator of this service the request id."
    engine.error = EngineAwayError("The engine does not answer: %(reason)s.", hint=hint, reason=why)
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


def test_the_script_gets_its_words(client: FlaskClient) -> None:
    content = re.search(r'<meta name="words" content="([^"]*)">', client.get("/", headers=GERMAN).text)

    assert content
    words = json.loads(html.unescape(content[1]))
    assert words["Remove all"] == "Alle entfernen"
    assert words["%(num)s object"] == ["%(num)s Objekt", "%(num)s Objekte"]
    assert "The image has 0 bytes." not in words
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


def test_what_a_build_wrote_down_is_told_too(client: FlaskClient) -> None:
    with client.application.test_request_context("/?lang=de"):
        told = [
            languages.told(stored_texts.text(words))
            for words in (
                "left out: NNCF is not installed",
                "agrees in 98.10%, at least 99.50% is needed",
                "nobody knows this",
            )
        ]

    assert told[0] == "ausgelassen: NNCF ist nicht installiert"
    assert told[1].startswith("stimmt zu 98.10 % überein")
    assert told[2] == "nobody knows this"


@pytest.mark.parametrize(
    ("text", "german"),
    [
        (
            Text("The image has %(size)s bytes; at most %(most)s are accepted.", size=20000001, most=20000000),
            "Das Bild hat 20.000.001 Bytes; angenommen werden höchstens 20.000.000.",
        ),
        (
            Text("%(name)s cannot be reached within %(seconds).1f s.", name="peer", seconds=2.0),
            "peer ist nicht innerhalb von 2,0 s erreichbar.",
        ),
        (
            Text(
                "The %(format)s image was not decoded within %(seconds)g s of processor time.",
                format="PNG",
                seconds=2.5,
            ),
            "Das PNG-Bild war nach 2,5 s Rechenzeit noch nicht dekodiert.",
        ),
        (
            Text(
                "The request has %(size)s; at most %(most)s are accepted.",
                size=Text("%(count)s bytes", count=12),
                most=9,
            ),
            "Die Anfrage hat 12 Bytes; höchstens 9 werden angenommen.",
        ),
        # A caller's own words are no ids, even where they are words of ours.
        (Text("%(name)s is empty.", name="The image"), "The image ist leer."),
        (Text("A plugin's own words, 100 % of them."), "A plugin's own words, 100 % of them."),
        (Text("%(a)s of a plugin", a=1), "1 of a plugin"),
    ],
)
def test_values_are_written_as_the_language_does(text: Text, german: str) -> None:
    assert say(text, "de") == german
    assert say(text, "en") == text


def test_a_failure_without_an_id_is_told_as_it_is(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = EngineAwayError("It burns at 100%, says %(somebody)s.", hint="Run.")
    form = {"image": (io.BytesIO(fakes.picture()), "a.jpg")}

    answer = client.post("/v1/detect", headers=GERMAN, data=form).get_json()

    assert (answer["detail"], answer["hint"]) == ("It burns at 100%, says %(somebody)s.", "Run.")
    assert answer["title"] == "Der Rechenprozess fehlt"
