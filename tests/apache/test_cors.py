"""Pages of other origins, through Apache: said once on every answer, whoever gives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.servers import Answer, Server

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with servers.running("test", CORS_ORIGINS=f"{ORIGIN},http://localhost:3000", AUTHENTICATION="required") as server:
        yield server


def allowed(answer: Answer) -> list[str]:
    return list(answer.headers.get_all("Access-Control-Allow-Origin") or [])


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 200), ("/livez", 200), ("/static/favicon.svg", 200), ("/static/nothing", 404), ("/nothing", 404)],
)
def test_every_answer_says_it_once(shared: Server, path: str, status: int) -> None:
    answer = shared.ask(path, headers={"Origin": ORIGIN})

    assert (answer.status, allowed(answer)) == (status, [ORIGIN])
    assert len(answer.headers.get_all("Access-Control-Expose-Headers")) == 1
    assert "Origin" in ", ".join(answer.headers.get_all("Vary"))
    assert allowed(shared.ask(path, headers={"Origin": "https://evil.example"})) == []


def test_refusals_of_the_app_and_of_apache_can_be_read(shared: Server) -> None:
    refused = shared.ask("/v1/models", headers={"Origin": ORIGIN, "X-Api-Token": ""})
    outside = shared.ask("/status", headers={"Origin": ORIGIN, "X-Forwarded-For": "203.0.113.1"})

    assert (refused.status, allowed(refused)) == (401, [ORIGIN])
    assert (outside.status, allowed(outside)) == (403, [ORIGIN])


def test_browser_that_asks_first_is_told(shared: Server) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "X-Api-Token": ""}
    for path in ("/v1/detect", "/v1/models", "/livez", "/v2/repository/index"):
        answer = shared.options(path, headers)

        assert (answer.status, allowed(answer)) == (200, [ORIGIN]), path
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "X-Api-Token" in answer.headers["Access-Control-Allow-Headers"]
    assert (
        "Access-Control-Allow-Methods" not in shared.options("/v1/detect", {"Origin": "https://evil.example"}).headers
    )
