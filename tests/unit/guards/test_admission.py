"""Who may come in: places, expected wait, deadlines, fair shares; and that a refusal touches neither body nor Flask."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from app.guards.admission import Admission, Gate
from tests import fakes

ROUTE = "/v1/classify"


def gate(places: int = 8, max_wait_seconds: float = 1.0, cost_seconds: float | None = None) -> Gate:
    known = {} if cost_seconds is None else {ROUTE: cost_seconds}
    return Gate(places, max_wait_seconds, least_places=2, cost_seconds=known)


def fill(gate: Gate, caller: str) -> int:
    """How many requests of one caller are let in."""
    count = 0
    while gate.enter(ROUTE, caller) is None:
        count += 1
    return count


def test_one_caller_gets_most_places_but_not_the_reserve() -> None:
    assert fill(gate(places=8), "a") == 6


def test_another_caller_still_finds_a_place() -> None:
    full = gate(places=8)
    fill(full, "a")

    assert fill(full, "b") == 2


def test_nobody_gets_more_than_there_is() -> None:
    full = gate(places=8)

    assert sum(fill(full, caller) for caller in "abcdef") == 8


def test_a_place_that_was_left_is_free_again() -> None:
    full = gate(places=4)
    fill(full, "a")

    full.leave(ROUTE, "a", 0.1, 1, is_answered=True)

    assert full.enter(ROUTE, "a") is None


def test_a_request_that_would_wait_too_long_is_refused_with_the_time_it_would_take() -> None:
    slow = gate(places=100, max_wait_seconds=4.0, cost_seconds=1.0)

    assert fill(slow, "a") == 3
    assert slow.enter(ROUTE, "a") == pytest.approx(4.0)


def test_a_slow_model_is_kept_busy_all_the_same() -> None:
    assert fill(gate(cost_seconds=60.0), "a") == 2


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    busy = gate(max_wait_seconds=10.0, cost_seconds=1.0)
    busy.enter(ROUTE, "a")
    busy.enter(ROUTE, "a")

    assert busy.enter(ROUTE, "a", timeout_seconds=2.0) is not None
    assert busy.enter(ROUTE, "a", timeout_seconds=5.0) is None


def test_the_cost_of_a_request_is_learned_from_answers_only() -> None:
    learning = gate()
    for is_answered in (True, False):
        learning.enter(ROUTE, "a")
        learning.leave(ROUTE, "a", 2.0 if is_answered else 90.0, 4, is_answered=is_answered)

    assert learning.cost_seconds[ROUTE] == pytest.approx(0.5)


def test_no_count_is_lost_between_threads() -> None:
    shared = gate(places=10_000, max_wait_seconds=1e9)

    def visit() -> None:
        for _ in range(500):
            if shared.enter(ROUTE, threading.current_thread().name) is None:
                shared.leave(ROUTE, threading.current_thread().name, 0.001, 1, is_answered=True)

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert shared.in_work == 0


class UnreadBody:
    """A body that nobody may read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")


def environ(path: str = ROUTE, method: str = "POST") -> dict[str, Any]:
    return {"PATH_INFO": path, "REQUEST_METHOD": method, "REMOTE_ADDR": "10.0.0.1", "wsgi.input": UnreadBody()}


def test_a_refusal_is_a_problem_document_that_touches_neither_body_nor_app() -> None:
    def application(*_: Any) -> list[bytes]:
        raise AssertionError("the app was asked")

    closed = Admission(application, gate(places=0))
    answered: list[Any] = []

    body = closed(environ(), lambda status, headers: answered.append((status, dict(headers))))

    status, headers = answered[0]
    document = json.loads(b"".join(body))
    assert status.startswith("503")
    assert int(headers["Retry-After"]) >= 1
    assert document["code"] == "engine_busy"
    assert document["request_id"] == headers["X-Request-Id"]


@pytest.mark.parametrize(("path", "method"), [("/livez", "GET"), ("/v1/models", "GET"), ("/", "GET"), (ROUTE, "GET")])
def test_what_does_not_predict_is_always_let_in(path: str, method: str) -> None:
    closed = Admission(lambda *_: [b"through"], gate(places=0))

    assert closed(environ(path, method), lambda *_: None) == [b"through"]


def test_a_place_is_given_back_when_the_app_fails() -> None:
    def application(*_: Any) -> list[bytes]:
        raise RuntimeError("broken")

    middleware = Admission(application, gate())
    with pytest.raises(RuntimeError):
        middleware(environ(), lambda *_: None)

    assert middleware.gate.in_work == 0


def test_the_page_shows_a_refusal_as_a_page(tmp_path: Path) -> None:
    app = fakes.make_app(tmp_path)
    app.extensions["gate"].places = 0

    answer = app.test_client().post("/upload", data={})

    assert answer.status_code == 503
    assert answer.mimetype == "text/html"
    assert "Retry-After" in answer.headers
