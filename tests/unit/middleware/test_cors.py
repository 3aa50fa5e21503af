"""Pages of other origins: who is let in, what a browser is told beforehand, and that no session is for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.auth.tokens import TokenStore
from tests import fakes
from tests.fakes import FakeEngine

ORIGIN = "https://app.example"
ASKS_FIRST = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-token"}


def client(folder: Path, engine: FakeEngine, *origins: str, **settings: Any) -> FlaskClient:
    return fakes.make_app(folder, engine, cors_origins=origins, **settings).test_client()


def test_named_origin_is_let_in(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, ORIGIN, "http://localhost:3000")

    for origin in (ORIGIN, "http://localhost:3000"):
        response = caller.get("/v1/models", headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in response.headers["Vary"]
        assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://app.example", "https://app.example:8443", "https://app.example.evil"),
        *("https://xapp.example", "https://appxexample", "null", ""),
    ],
)
def test_other_origin_is_not(tmp_path: Path, engine: FakeEngine, origin: str) -> None:
    response = client(tmp_path, engine, ORIGIN).get("/v1/models", headers={"Origin": origin})

    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"]


def test_browser_that_asks_first_is_told_without_a_token(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, ORIGIN, authentication="required", rate_limit_per_address=("1/hour",))

    for _ in range(3):
        response = caller.options("/v1/detect", headers={"Origin": ORIGIN, **ASKS_FIRST})
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "X-Api-Token" in response.headers["Access-Control-Allow-Headers"]
        assert int(response.headers["Access-Control-Max-Age"]) > 0


def test_refusals_can_be_read_by_the_page(tmp_path: Path, engine: FakeEngine) -> None:
    caller = client(tmp_path, engine, ORIGIN, authentication="required")

    response = caller.get("/v1/models", headers={"Origin": ORIGIN})

    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)


def test_star_lets_in_everybody_by_a_star(tmp_path: Path, engine: FakeEngine) -> None:
    response = client(tmp_path, engine, "all").get("/v1/models", headers={"Origin": "https://any.example"})

    assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_nothing_is_said_where_nobody_is_named_or_nobody_asks(tmp_path: Path, engine: FakeEngine) -> None:
    def told(caller: FlaskClient, **headers: str) -> list[str]:
        return [name for name, _ in caller.get("/v1/models", headers=headers).headers if name.startswith("Access-")]

    assert told(client(tmp_path, engine), Origin=ORIGIN) == []
    assert told(client(tmp_path, engine, ORIGIN)) == []


def test_session_of_a_person_is_not_for_a_page_elsewhere(tmp_path: Path, engine: FakeEngine) -> None:
    app = fakes.make_app(tmp_path, engine, cors_origins=(ORIGIN,), authentication="required")
    caller = app.test_client()
    caller.post("/sign-in", data={"token": TokenStore(app.extensions["settings"].state_dir).create("one")[1]})

    assert caller.post("/v1/detect", headers={"Origin": ORIGIN}).status_code == 403
