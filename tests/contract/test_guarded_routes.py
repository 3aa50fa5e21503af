"""Every address of the app passes through the guards, whoever adds it and whatever it answers."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from app import policy
from app.config import ROOT
from app.guards.conditions import CACHE_CONTROL
from app.guards.headers import HEADERS
from app.telemetry import logs
from tests import fakes
from tests.fakes import FakeEngine

# Who answers: a new one must decide here that it stands behind the guards.
BLUEPRINTS = {"api", "legacy", "rpc", "inference", "openapi", "pages", "ops"}
VALUES = {"name": "classifier", "version": "1", "filename": "favicon.svg"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One app for all addresses; none of these requests changes it."""
    with fakes.logging_kept():
        yield fakes.make_app(tmp_path_factory.mktemp("app"), FakeEngine())


def rules(app: Flask) -> list[tuple[str, Rule]]:
    return [(method, rule) for rule in app.url_map.iter_rules() for method in sorted(rule.methods or ())]


def path(rule: Rule) -> str:
    _, built = rule.build({name: VALUES.get(name, "x") for name in rule.arguments}) or ("", "")
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


def test_every_blueprint_is_known(app: Flask) -> None:
    assert set(app.blueprints) == BLUEPRINTS
    assert all(
        rule.endpoint == "static" or rule.endpoint.split(".")[0] in BLUEPRINTS for rule in app.url_map.iter_rules()
    )


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


def test_guards_stand_before_all_blueprints(app: Flask) -> None:
    before = [each.__name__ for each in app.before_request_funcs[None]]

    assert before == [
        *("_begin", "refuse_other_hosts", "identify", "authorize"),
        *("_refuse_compressed", "refuse_large_bodies", "note_deadline", "refuse_page", "hold_body"),
    ]
    assert all(app.before_request_funcs.get(name) is None for name in BLUEPRINTS)


def test_wsgi_file_is_two_lines() -> None:
    lines = [line for line in (ROOT / "flask.wsgi").read_text().splitlines() if line]

    assert lines == ["from app.factory import create_app", "application = create_app()"]
