"""Who may come in: places, expected wait, deadlines, fair shares; and that a refusal touches neither body nor Flask."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.guards.admission import FRESH_SECONDS, Admission, Gate
from app.guards.notices import Notices
from tests import bad_input, fakes

ROUTE = "/v1/classify"


def gate(
    places: int = 8,
    max_wait_seconds: float = 1.0,
    cost_seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Gate:
    known = {} if cost_seconds is None else {ROUTE: cost_seconds}
    return Gate(places, max_wait_seconds, least_places=2, cost_seconds=known, clock=clock)


def fill(gate: Gate, caller: str) -> int:
    """How many requests of one caller come into work."""
    count = 0
    while gate.arrive(ROUTE, caller) is None:
        assert gate.begin(ROUTE, caller) is None
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

    full.end(ROUTE, "a", 0.1, 1, is_answered=True)

    assert full.arrive(ROUTE, "a") is None


def test_a_request_that_would_wait_too_long_is_refused_with_the_time_it_would_take() -> None:
    slow = gate(places=100, max_wait_seconds=4.0, cost_seconds=1.0)

    assert fill(slow, "a") == 4
    assert slow.arrive(ROUTE, "a") == pytest.approx(5.0)


def test_a_caller_who_holds_little_may_wait_a_little_longer() -> None:
    slow = gate(places=100, max_wait_seconds=4.0, cost_seconds=1.0)
    fill(slow, "a")

    assert fill(slow, "b") == 1


def test_a_slow_model_is_kept_busy_all_the_same() -> None:
    assert fill(gate(cost_seconds=60.0), "a") == 2


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    busy = gate(max_wait_seconds=10.0, cost_seconds=1.0)
    for _ in range(2):
        busy.arrive(ROUTE, "a")
        busy.begin(ROUTE, "a")

    assert busy.arrive(ROUTE, "a", timeout_seconds=2.0) is not None
    assert busy.arrive(ROUTE, "a", timeout_seconds=5.0) is None


def test_bodies_that_are_still_on_the_way_keep_nobody_waiting() -> None:
    now = [0.0]
    open_gate = gate(places=100, max_wait_seconds=1.0, cost_seconds=0.3, clock=lambda: now[0])
    for _ in range(50):
        now[0] += 2 * FRESH_SECONDS
        assert open_gate.arrive(ROUTE, "slow") is None

    now[0] += 2 * FRESH_SECONDS
    assert open_gate.arrive(ROUTE, "quick") is None
    assert open_gate.begin(ROUTE, "quick") is None


def test_of_many_that_come_at_once_only_those_are_let_in_that_will_be_answered_in_time() -> None:
    """Before any of them is in work: to read their bodies and refuse them then would cost everybody's time."""
    crowded = gate(places=100, max_wait_seconds=1.0, cost_seconds=0.1)

    admitted = [crowded.arrive(ROUTE, "a") for _ in range(50)].count(None)

    assert admitted == 10
    assert crowded.is_refused("a", has_notice=False)
    assert [crowded.begin(ROUTE, "a") for _ in range(admitted)] == [None] * admitted


def test_whoever_has_come_and_gone_keeps_nobody_waiting() -> None:
    crowded = gate(places=100, max_wait_seconds=1.0, cost_seconds=0.4)
    for _ in range(2):
        assert crowded.arrive(ROUTE, "a") is None
    assert crowded.arrive(ROUTE, "a") is not None

    crowded.leave(ROUTE, "a")

    assert crowded.arrive(ROUTE, "a") is None


def test_bodies_that_are_still_on_the_way_take_places_all_the_same() -> None:
    full = gate(places=8)

    admitted = sum(full.arrive(ROUTE, "slow") is None for _ in range(20))

    assert admitted == 6


def test_whoever_comes_late_with_its_body_may_be_refused_then() -> None:
    now = [0.0]
    busy = gate(places=100, max_wait_seconds=1.0, cost_seconds=0.3, clock=lambda: now[0])
    busy.arrive(ROUTE, "late")
    now[0] += 2 * FRESH_SECONDS
    fill(busy, "quick")

    assert busy.begin(ROUTE, "late") is not None


def test_the_cost_of_a_request_is_learned_from_answers_only() -> None:
    learning = gate()
    for is_answered in (True, False):
        learning.arrive(ROUTE, "a")
        learning.begin(ROUTE, "a")
        learning.end(ROUTE, "a", 2.0 if is_answered else 90.0, 4, is_answered=is_answered)

    assert learning.cost_seconds[ROUTE] == pytest.approx(0.5)


def test_the_first_answer_of_a_cold_server_does_not_pass_for_the_cost_of_the_next() -> None:
    learning = gate()
    for seconds in (0.4, *[0.01] * 9):
        learning.arrive(ROUTE, "a")
        learning.begin(ROUTE, "a")
        learning.end(ROUTE, "a", seconds, 1, is_answered=True)

    assert learning.cost_seconds[ROUTE] == pytest.approx(0.049)


def test_no_count_is_lost_between_threads() -> None:
    shared = gate(places=10_000, max_wait_seconds=1e9)

    def visit() -> None:
        name = threading.current_thread().name
        for _ in range(500):
            if shared.arrive(ROUTE, name) is None and shared.begin(ROUTE, name) is None:
                shared.end(ROUTE, name, 0.001, 1, is_answered=True)

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (shared.arriving, shared.in_work) == (0, 0)


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

    assert (middleware.gate.arriving, middleware.gate.in_work) == (0, 0)


def test_a_prediction_is_counted_while_it_is_in_work_and_not_after(tmp_path: Path) -> None:
    engine = fakes.FakeEngine()
    app = fakes.make_app(tmp_path, engine)
    seen: list[int] = []
    predict = engine.predict

    def watched(*arguments: Any) -> Any:
        seen.append(app.extensions["gate"].in_work)
        return predict(*arguments)

    engine.predict = watched  # type: ignore[method-assign]
    answer = app.test_client().post(ROUTE, data=bad_input.good_image(), content_type="image/jpeg")

    assert answer.status_code == 200
    assert seen == [1]
    assert app.extensions["gate"].in_work == 0
    assert ROUTE in app.extensions["gate"].cost_seconds


def test_the_page_shows_a_refusal_as_a_page(tmp_path: Path) -> None:
    app = fakes.make_app(tmp_path)
    app.extensions["gate"].places = 0

    answer = app.test_client().post("/upload", data={})

    assert answer.status_code == 503
    assert answer.mimetype == "text/html"
    assert "Retry-After" in answer.headers


# ── notices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_is_refused_while_there_is_room() -> None:
    assert not gate().is_refused("a", has_notice=False)


def test_caller_is_refused_as_soon_as_the_next_request_would_be() -> None:
    slow = gate(places=100, max_wait_seconds=4.0, cost_seconds=1.0)
    fill(slow, "a")

    assert slow.arrive(ROUTE, "a") is not None
    assert slow.is_refused("a", has_notice=False)


def test_caller_with_a_notice_waits_until_half_of_the_work_is_done() -> None:
    slow = gate(places=100, max_wait_seconds=8.0, cost_seconds=1.0)
    count, refused = fill(slow, "a"), []
    for _ in range(count):
        slow.end(ROUTE, "a", 1.0, 1, is_answered=True)
        refused.append((slow.is_refused("a", has_notice=False), slow.is_refused("a", has_notice=True)))

    assert [plain for plain, _ in refused] == [False] * count
    assert [with_notice for _, with_notice in refused].index(False) == count // 2


def test_caller_is_refused_early_when_more_are_on_their_way() -> None:
    half_full = gate(places=16)
    for _ in range(6):
        assert half_full.arrive(ROUTE, "a") is None

    assert not half_full.is_refused("a", has_notice=False, coming=5)
    assert half_full.is_refused("a", has_notice=False, coming=6)


def test_another_caller_is_not_refused_with_the_first() -> None:
    full = gate(places=8)
    fill(full, "a")

    assert full.is_refused("a", has_notice=False)
    assert not full.is_refused("b", has_notice=False)


def test_notice_follows_what_the_gate_says(tmp_path: Path) -> None:
    narrow = Gate(places=1, max_wait_seconds=1.0, least_places=1)
    seen: list[list[str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append([path.name for path in tmp_path.iterdir()])
        start_response("200 OK", [])
        return []

    admission = Admission(app, narrow, Notices(tmp_path, narrow.is_refused))
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": ROUTE, "REMOTE_ADDR": "127.0.0.1"}
    admission(environ, lambda *_: None)

    assert seen == [["127.0.0.1"]]
    assert list(tmp_path.iterdir()) == []
