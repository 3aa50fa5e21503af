"""Sign-in on the pages: who is let in, where to, for how long, and who may not use a person's session."""

from __future__ import annotations

import io
import time
from datetime import timedelta
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.auth.tokens import LOOK_SECONDS, TokenStore, TokenTable
from app.errors import TokenInvalidError
from app.web.middleware import authentication
from tests import fakes
from tests.fakes import FakeEngine, picture

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Flask:
    return fakes.make_app(tmp_path, engine, authentication="required")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def store(app: Flask) -> TokenStore:
    return TokenStore(app.extensions["settings"].state_dir)


def enter(client: FlaskClient, token: str, to: str = "", **how: object) -> TestResponse:
    return client.post("/sign-in", data={"token": token, "next": to}, **how)  # type: ignore[arg-type]


def cookie(response: TestResponse) -> SimpleCookie:
    return SimpleCookie(next(each for each in response.headers.getlist("Set-Cookie") if "cask_session" in each))


def test_person_without_a_session_is_sent_to_the_way_in_and_on_to_the_page(
    client: FlaskClient, store: TokenStore
) -> None:
    sent = client.get("/models?lang=de", headers=BROWSER)

    assert (sent.status_code, sent.location) == (303, "/sign-in?next=/models?lang%3Dde")
    form = client.get(sent.location).get_data(as_text=True)
    assert 'name="next" value="/models?lang=de"' in form
    entered = enter(client, f" {store.create('one')[1]} ", "/models?lang=de")
    assert (entered.status_code, entered.location) == (303, "/models?lang=de")
    page = client.get(entered.location, headers=BROWSER)
    assert page.status_code == 200
    assert "one" in page.get_data(as_text=True)


@pytest.mark.parametrize("headers", [{}, {"Accept": "application/json"}, {**BROWSER, "X-Api-Token": "x"}])
def test_program_is_not_sent_to_a_form(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.get("/", headers=headers).status_code == 401


def test_session_is_good_for_the_scripts_of_the_page(client: FlaskClient, store: TokenStore) -> None:
    enter(client, store.create("one")[1])

    answer = client.post(
        "/v1/detect", data=picture(), content_type="image/jpeg", headers={"Origin": "http://localhost"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("token", ["", "a-wrong-one", "cask_00000000_" + "0" * 48])
def test_wrong_token_shows_the_form_again_and_not_the_token(client: FlaskClient, token: str) -> None:
    response = enter(client, token, "/models")

    text = response.get_data(as_text=True)
    assert response.status_code == 422
    assert 'role="alert"' in text
    assert 'value="/models"' in text
    assert not token or token not in text
    assert client.get("/", headers=BROWSER).status_code == 303


def test_token_of_an_operator_is_not_for_pages(client: FlaskClient, store: TokenStore) -> None:
    assert enter(client, store.create("one", ["admin"])[1]).status_code == 422


def test_session_ends_with_its_token(app: Flask, client: FlaskClient, store: TokenStore) -> None:
    enter(client, store.create("one")[1])
    assert client.get("/", headers=BROWSER).status_code == 200

    store.revoke("one")
    later = time.monotonic() + LOOK_SECONDS
    app.extensions[authentication.EXTENSION]._clock = lambda: later

    assert client.get("/", headers=BROWSER).location == "/sign-in?next=/"
    assert client.get("/v1/models").status_code == 401


def test_sign_out_forgets(client: FlaskClient, store: TokenStore) -> None:
    enter(client, store.create("one")[1])

    out = client.post("/sign-out")

    assert (out.status_code, out.location) == (303, "/sign-in")
    assert client.get("/", headers=BROWSER).status_code == 303


def test_cookie_is_for_the_server_alone(app: Flask, client: FlaskClient, store: TokenStore) -> None:
    text = store.create("one")[1]

    plain = cookie(enter(client, text))["cask_session"]
    secure = cookie(enter(client, text, base_url="https://localhost"))["cask_session"]

    assert (plain["httponly"], plain["samesite"], plain["path"], plain["secure"]) == (True, "Lax", "/", "")
    assert (secure["httponly"], secure["samesite"], secure["secure"]) == (True, "Lax", True)
    assert app.permanent_session_lifetime == timedelta(hours=12)
    assert text.rpartition("_")[2] not in plain.value


def test_cookie_of_another_key_is_none(tmp_path: Path, client: FlaskClient, store: TokenStore) -> None:
    forged = cookie(enter(client, store.create("one")[1]))["cask_session"].value
    head, _, rest = forged.partition(".")
    client.set_cookie("cask_session", f"{head[:-2]}AA.{rest}")

    assert client.get("/", headers=BROWSER).status_code == 303


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:8001"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", ["/upload", "/v1/detect", "/sign-in", "/sign-out", "/v1/jobs"])
def test_form_of_another_site_is_refused(
    client: FlaskClient, store: TokenStore, headers: dict[str, str], path: str
) -> None:
    enter(client, store.create("one")[1])

    response = client.post(path, headers=headers)

    assert (response.status_code, "origin_foreign" in response.get_data(as_text=True)) == (403, True)
    assert client.get("/", headers={**BROWSER, **headers}).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {}])
def test_form_of_our_own_page_is_taken(client: FlaskClient, store: TokenStore, headers: dict[str, str]) -> None:
    enter(client, store.create("one")[1])

    form = {"image_upload": (io.BytesIO(picture()), "a.jpg")}
    assert client.post("/upload", data=form, headers=headers).status_code == 200


def test_program_with_a_token_may_come_from_any_page(client: FlaskClient, store: TokenStore) -> None:
    headers = {"X-Api-Token": store.create("one")[1], "Origin": "https://app.example"}

    answer = client.post("/v1/detect", data=picture(), content_type="image/jpeg", headers=headers)
    assert answer.status_code == 200


ELSEWHERE = [
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "/a\r\nb",
    "",
    "x",
    "/sign-in",
]


@pytest.mark.parametrize("to", ELSEWHERE)
def test_nobody_is_sent_to_another_site(client: FlaskClient, store: TokenStore, to: str) -> None:
    assert enter(client, store.create("one")[1], to).location == "/"


def test_who_has_signed_in_goes_on_at_once(client: FlaskClient, store: TokenStore) -> None:
    enter(client, store.create("one")[1])

    assert client.get("/sign-in?next=/models").location == "/models"


def test_where_nobody_needs_a_token_there_is_nothing_to_sign_in_to(tmp_path: Path, engine: FakeEngine) -> None:
    client = fakes.make_app(tmp_path, engine).test_client()

    assert client.get("/sign-in").location == "/"
    assert enter(client, "x").location == "/"
    assert "Sign out" not in client.get("/").get_data(as_text=True)


def test_requests_without_a_session_do_not_differ_by_cookies(client: FlaskClient, store: TokenStore) -> None:
    headers = {"X-Api-Token": store.create("one")[1]}

    assert "Cookie" not in client.get("/v1/models", headers=headers).headers.get("Vary", "")


def test_a_copy_of_the_cookie_lets_nobody_in_after_sign_out(app: Flask, client: FlaskClient, store: TokenStore) -> None:
    entered = enter(client, store.create("one")[1])
    copied = cookie(entered)["cask_session"].value
    thief = app.test_client()
    thief.set_cookie("cask_session", copied)
    assert thief.get("/models", headers=BROWSER).status_code == 200

    client.post("/sign-out", headers={"Origin": "http://localhost"})

    assert thief.get("/models", headers=BROWSER).status_code == 303
    same_origin = {"Origin": "http://localhost"}
    answer = thief.post("/v1/detect", data=picture(), content_type="image/jpeg", headers=same_origin)
    assert answer.status_code == 401


def test_signing_in_again_ends_the_session_before(app: Flask, client: FlaskClient, store: TokenStore) -> None:
    token = store.create("one")[1]
    copied = cookie(enter(client, token))["cask_session"].value
    thief = app.test_client()
    thief.set_cookie("cask_session", copied)
    assert thief.get("/models", headers=BROWSER).status_code == 200

    enter(client, token)

    assert thief.get("/models", headers=BROWSER).status_code == 303
    assert client.get("/models", headers=BROWSER).status_code == 200


def test_signing_out_ends_one_session_and_not_the_token(app: Flask, client: FlaskClient, store: TokenStore) -> None:
    _, token = store.create("one")
    other = app.test_client()
    enter(client, token)
    enter(other, token)

    client.post("/sign-out", headers={"Origin": "http://localhost"})

    assert other.get("/models", headers=BROWSER).status_code == 200


def test_another_process_hears_of_a_sign_out(tmp_path: Path) -> None:
    now = fakes.FakeClock(1000.0)
    store, here, there = TokenStore(tmp_path), TokenTable(tmp_path, now), TokenTable(tmp_path, now)
    token, _ = store.create("one")
    assert there.by_session("s1", token.id, token.created).id == token.id

    here.end_session("s1", 3600)
    now.now += 1

    with pytest.raises(TokenInvalidError, match="signed out"):
        there.by_session("s1", token.id, token.created)
    assert there.by_session("s2", token.id, token.created).id == token.id


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", ["bad", "", "signed out"])
def test_the_session_that_lives_counts_of_several(app: Flask, store: TokenStore, other: str, order: int) -> None:
    token = store.create("one")[1]
    good, ended = (cookie(enter(app.test_client(), token))["cask_session"].value for _ in range(2))
    browser = app.test_client(use_cookies=False)
    assert browser.post("/sign-out", headers={"Cookie": f"cask_session={ended}"}).status_code == 303
    values = [ended if other == "signed out" else other, good][::order]

    answer = browser.get("/", headers={**BROWSER, "Cookie": "; ".join(f"cask_session={each}" for each in values)})

    assert answer.status_code == 200


def test_sign_out_ends_all_that_the_browser_shows(app: Flask, store: TokenStore) -> None:
    token = store.create("one")[1]
    shown = [cookie(enter(app.test_client(), token))["cask_session"].value for _ in range(2)]
    browser = app.test_client(use_cookies=False)

    browser.post("/sign-out", headers={"Cookie": "; ".join(f"cask_session={each}" for each in shown)})

    for each in shown:
        assert browser.get("/", headers={**BROWSER, "Cookie": f"cask_session={each}"}).status_code == 303
