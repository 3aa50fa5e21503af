"""Who may ask: where a token is looked for, what is refused and how, and what is told from inside only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.auth.tokens import LOOK_SECONDS, TokenStore
from app.web.middleware import authentication, microcache
from tests import fakes
from tests.fakes import FakeEngine, picture

OUTSIDE = {"REMOTE_ADDR": "203.0.113.7"}
NewToken = Callable[..., str]


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Flask:
    return fakes.make_app(tmp_path, engine, authentication="required")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def new_token(app: Flask) -> NewToken:
    store = TokenStore(app.extensions["settings"].state_dir)
    return lambda *scopes, name="one": store.create(name, scopes or ("predict",))[1]


def test_request_without_a_token_is_told_how_to_come_in(client: FlaskClient) -> None:
    response = client.get("/v1/models")

    assert (response.status_code, response.json["code"]) == (401, "token_missing")  # type: ignore[index]
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="cask"'


@pytest.mark.parametrize(
    "headers",
    [
        lambda text: {"X-Api-Token": text},
        lambda text: {"Authorization": f"Bearer {text}"},
        lambda text: {"Authorization": f"bearer   {text} "},
        lambda text: {"X-Api-Token": text, "Authorization": "Basic YTpi"},
        lambda text: {"X-Api-Token": "", "Authorization": f"Bearer {text}"},
    ],
)
def test_token_is_taken_from_either_header(
    client: FlaskClient, new_token: NewToken, headers: Callable[[str], dict[str, str]]
) -> None:
    given = headers(new_token())

    assert client.get("/v1/models", headers=given).status_code == 200
    answer = client.post("/v1/detect", data=picture(), content_type="image/jpeg", headers=given)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers", [{"X-Api-Token": "x"}, {"Authorization": "Bearer x"}, {"X-Api-Token": "cask_00000000_" + "0" * 48}]
)
def test_wrong_token_is_refused_as_such(client: FlaskClient, headers: dict[str, str]) -> None:
    response = client.get("/v1/models", headers=headers)

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")  # type: ignore[index]
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="cask", error="invalid_token"'


def test_authorization_of_another_kind_is_none(client: FlaskClient) -> None:
    response = client.get("/v1/models", headers={"Authorization": "Basic YTpi"})

    assert response.json["code"] == "token_missing"  # type: ignore[index]


def test_scope_decides_what_a_token_is_good_for(client: FlaskClient, new_token: NewToken) -> None:
    predict, admin = new_token("predict"), new_token("admin", name="two")

    def status(path: str, text: str) -> int:
        return client.get(path, headers={"X-Api-Token": text}).status_code

    assert (status("/v1/models", predict), status("/v1/models", admin)) == (200, 403)
    assert (status("/status", predict), status("/status", admin)) == (403, 200)
    assert (status("/version", predict), status("/version", admin)) == (200, 200)
    refused = client.get("/status", headers={"X-Api-Token": predict})
    assert refused.json["code"] == "scope_missing"  # type: ignore[index]
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="cask", error="insufficient_scope"'


def test_revoked_token_is_refused_by_a_process_that_knows_it(
    app: Flask, client: FlaskClient, new_token: NewToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = new_token()
    assert client.get("/v1/models", headers={"X-Api-Token": text}).status_code == 200

    TokenStore(app.extensions["settings"].state_dir).revoke("one")
    later = time.monotonic() + LOOK_SECONDS
    monkeypatch.setattr(app.extensions[authentication.EXTENSION], "_clock", lambda: later)

    assert client.get("/v1/models", headers={"X-Api-Token": text}).status_code == 401


def test_operators_addresses_are_not_answered_outside_even_with_a_token(
    client: FlaskClient, new_token: NewToken
) -> None:
    headers = {"X-Api-Token": new_token("admin")}

    response = client.get("/status", headers=headers, environ_overrides=OUTSIDE)

    assert (response.status_code, response.json["code"]) == (403, "forbidden")  # type: ignore[index]
    assert client.get("/status", headers=headers).status_code == 200


def test_proxy_that_we_do_not_know_is_not_inside(client: FlaskClient, new_token: NewToken) -> None:
    headers = {"X-Api-Token": new_token("admin")}

    for name in ("X-Forwarded-For", "Forwarded"):
        assert client.get("/status", headers={**headers, name: "127.0.0.1"}).status_code == 403


def test_reasons_of_ready_are_told_inside_and_to_admins(
    client: FlaskClient, engine: FakeEngine, new_token: NewToken
) -> None:
    engine.states = {manifest.key: "failed" for manifest in engine.manifests}
    admin, predict = new_token("admin"), new_token("predict", name="two")

    def body(text: str = "", **environ: str) -> object:
        headers = {"X-Api-Token": text} if text else {}
        response = client.get("/readyz", headers=headers, environ_overrides=environ)
        assert response.status_code == 503
        return response.json

    assert body(**OUTSIDE) == body(predict, **OUTSIDE) == {"ready": False}
    assert "missing" in body()  # type: ignore[operator]
    assert body(admin, **OUTSIDE) == body()


def test_nobody_needs_a_token_where_it_is_off_but_operators_addresses_stay_inside(
    tmp_path: Path, engine: FakeEngine
) -> None:
    client = fakes.make_app(tmp_path, engine, authentication="off").test_client()

    assert client.get("/v1/models").status_code == client.get("/status").status_code == 200
    assert client.get("/v1/models", headers={"X-Api-Token": "x"}).status_code == 200
    assert client.get("/status", environ_overrides=OUTSIDE).status_code == 403
    assert not list(tmp_path.rglob("tokens.sqlite3"))


def test_answers_of_one_caller_are_never_kept_for_another() -> None:
    assert {authentication.TOKEN_KEY, authentication.AUTHORIZATION_KEY, "HTTP_COOKIE"} <= microcache.PERSONAL


def test_kept_list_of_models_is_not_given_to_who_may_not_ask(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, authentication="required", request_microcache_ms=10_000)
    text = TokenStore(app.extensions["settings"].state_dir).create("one")[1]
    client = app.test_client()

    for _ in range(2):
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {text}"}).status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_refused_request_does_not_keep_a_place(app: Flask, client: FlaskClient) -> None:
    gate = app.extensions["admission"]

    for _ in range(5):
        client.post("/v1/detect", data=picture(), content_type="image/jpeg")

    assert (gate.in_hand, gate.images, gate.costs.least()) == (0, 0, 0)
