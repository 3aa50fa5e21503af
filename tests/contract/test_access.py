"""Where tokens are required, every address wants one, but for a short list that stands here too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from app.auth.tokens import TokenStore
from app.web import policy
from app.web.policy import Access
from tests import fakes
from tests.contract.test_error_shape import FIELDS
from tests.contract.test_guarded_routes import path
from tests.fakes import FakeEngine

PUBLIC_PATHS = {
    *("/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"),
    *("/openapi.json", "/docs", "/redoc", "/docs/assets/<name>", "/static/<path:filename>"),
    *("/sign-in", "/sign-out"),
    "/metrics",  # has a lock of its own: METRICS_ALLOW
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One app for all addresses; none of these requests changes it."""
    with fakes.logging_kept():
        yield fakes.make_app(tmp_path_factory.mktemp("app"), FakeEngine(), authentication="required")


def asked(app: Flask) -> list[tuple[str, Rule]]:
    methods = [(method, rule) for rule in app.url_map.iter_rules() for method in sorted(rule.methods or ())]
    return [(method, rule) for method, rule in methods if method != "OPTIONS"]


def test_every_address_wants_a_token_but_these(app: Flask, client: FlaskClient) -> None:
    for method, rule in asked(app):
        response = client.open(path(rule), method=method)

        is_refused = response.status_code == 401
        assert is_refused == (rule.rule not in PUBLIC_PATHS), (method, rule)
        if is_refused and method != "HEAD":
            assert response.headers["WWW-Authenticate"].startswith("Bearer"), rule
            assert "token_missing" in response.get_data(as_text=True), rule
        response.close()


def test_every_address_refuses_a_wrong_token_the_same_way(app: Flask, client: FlaskClient) -> None:
    for method, rule in asked(app):
        if rule.rule not in PUBLIC_PATHS:
            response = client.open(path(rule), method=method, headers={"X-Api-Token": "cask_0_0"})

            assert response.status_code == 401, (method, rule)


def test_no_address_but_the_operators_refuses_a_good_token(app: Flask, client: FlaskClient) -> None:
    text = TokenStore(app.extensions["settings"].state_dir).create("contract")[1]
    for method, rule in asked(app):
        response = client.open(path(rule), method=method, headers={"X-Api-Token": text})

        assert response.status_code != 401, (method, rule)
        assert (response.status_code == 403) == (policy.of(app, rule.endpoint).access is Access.ADMIN), (method, rule)
        response.close()


def test_refusal_is_a_problem_document(client: FlaskClient) -> None:
    response = client.get("/v1/models")

    assert list(response.get_json(force=True)) == FIELDS


def test_description_tells_tokens_and_refusals_where_they_are(app: Flask, client: FlaskClient) -> None:
    document: dict[str, Any] = client.get("/openapi.json").json  # type: ignore[assignment]

    assert set(document["components"]["securitySchemes"]) == {"token", "bearer"}
    for place, operations in document["paths"].items():
        for operation in operations.values():
            is_public = place.replace("{", "<").replace("}", ">") in PUBLIC_PATHS
            assert ("security" in operation) == ("401" in operation["responses"]) == (not is_public), place


def test_description_without_tokens_does_not_speak_of_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    app = fakes.make_app(tmp_path_factory.mktemp("off"), FakeEngine())
    document: dict[str, Any] = app.test_client().get("/openapi.json").json  # type: ignore[assignment]

    assert "securitySchemes" not in document["components"]
    assert all("401" not in each["responses"] for row in document["paths"].values() for each in row.values())
