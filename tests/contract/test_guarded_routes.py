"""Every address of the app passes through the guards, whoever adds it and whatever it answers."""

from __future__ import annotations

import io
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from app import factory
from app.auth.tokens import TokenStore
from app.config import ROOT
from app.telemetry import logs
from app.web import policy
from app.web.middleware.conditional_requests import CACHE_CONTROL
from app.web.middleware.security_headers import HEADERS
from tests import fakes
from tests.fakes import FakeEngine

VALUES = {"name": "classifier", "version": "1", "filename": "favicon.svg"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One app for all addresses; none of these requests changes it."""
    with fakes.logging_kept():
        yield fakes.make_app(tmp_path_factory.mktemp("app"), FakeEngine())


def rules(app: Flask) -> list[tuple[str, Rule]]:
    return [(method, rule) for rule in app.url_map.iter_rules() for method in sorted(rule.methods or ())]


def path(rule: Rule) -> str:
    _, built = rule.build({name: VALUES.get(name, "1") for name in rule.arguments}) or ("", "")
    return str(built)


def test_every_address_gives_request_id_and_security_headers(app: Flask, client: FlaskClient) -> None:
    for method, rule in rules(app):
        response = client.open(path(rule), method=method)

        assert response.headers.get("X-Request-Id"), (method, rule)
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS, (method, rule)
        assert all(len(response.headers.getlist(name)) == 1 for name in HEADERS), (method, rule)
        assert response.status_code < 500 or rule.endpoint.startswith("ops."), (method, rule)
        response.close()


def test_no_answer_but_a_file_may_be_stored_on_the_way(app: Flask, client: FlaskClient) -> None:
    for method, rule in rules(app):
        if not policy.of(app, rule.endpoint).is_storable:
            response = client.open(path(rule), method=method)

            may_be_kept = policy.of(app, rule.endpoint).is_conditional and method in ("GET", "HEAD")
            expected = CACHE_CONTROL if may_be_kept else "no-store"
            assert response.headers.get("Cache-Control") == expected, (method, rule)


def test_every_address_refuses_too_large_a_body(app: Flask, client: FlaskClient) -> None:
    too_many = app.config["MAX_CONTENT_LENGTH"] + 1
    for method, rule in rules(app):
        response = client.open(
            path(rule),
            method=method,
            input_stream=io.BytesIO(),
            environ_overrides={"CONTENT_LENGTH": str(too_many)},
        )

        assert response.status_code == 413, (method, rule)


def test_every_address_but_health_refuses_another_host(app: Flask, client: FlaskClient) -> None:
    for method, rule in rules(app):
        response = client.open(path(rule), method=method, headers={"Host": "evil.example"})

        assert (response.status_code == 400) == (not rule.endpoint.startswith("ops.")), (method, rule)
        response.close()


def test_request_id_is_in_the_log_of_its_request_only(client: FlaskClient) -> None:
    client.get("/v1/models", headers={"X-Request-Id": "caller-12345"})

    assert logs.request_id.get() == ""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Flask, list[str]]]:
    """An app with a view and a hook of somebody else's, and what these two got to see."""
    seen: list[str] = []
    theirs = Blueprint("theirs", __name__)
    theirs.before_request(lambda: seen.append("hook"))
    theirs.add_url_rule("/theirs", "view", lambda: seen.append("view") or "done", methods=["POST"])
    with fakes.logging_kept():
        app = fakes.make_app(tmp_path, FakeEngine(), authentication="required")
        app.register_blueprint(theirs)
        yield app, seen


def test_code_of_others_sees_no_request_that_a_guard_refuses(guarded: tuple[Flask, list[str]]) -> None:
    app, seen = guarded
    client = app.test_client()
    token = {"X-Api-Token": TokenStore(app.extensions["settings"].state_dir).create("theirs")[1]}
    large = {"CONTENT_LENGTH": str(app.config["MAX_CONTENT_LENGTH"] + 1)}
    # In this order: what costs least comes first, and nobody's body is looked at before it is known who sends it.
    refused = [
        client.post("/theirs", headers={"Host": "evil.example"}, environ_overrides=large).status_code,
        client.post("/theirs", environ_overrides=large).status_code,
        client.post("/theirs", headers=token, environ_overrides=large, input_stream=io.BytesIO()).status_code,
        client.post("/theirs", headers={**token, "Content-Encoding": "gzip"}, data=b"x").status_code,
    ]
    seen_of_refused = list(seen)

    answered = client.post("/theirs", headers=token, data=b"x")

    assert refused == [400, 401, 413, 415]
    assert seen_of_refused == []
    assert (answered.status_code, seen) == (200, ["hook", "view"])


def test_what_apache_loads_is_the_app_of_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Flask("made")
    monkeypatch.setattr(factory, "create_app", lambda: made)

    assert runpy.run_path(str(ROOT / "flask.wsgi"))["application"] is made
