"""Answers that are kept for a moment: for whom, for how long, and whose request id they carry."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from app.web.middleware.microcache import MAX_KEPT, Microcache
from tests import fakes
from tests.fakes import PATIENCE_SECONDS, FakeClock

KEEP_SECONDS = 0.25


class CountingApp:
    """A WSGI application that numbers its answers."""

    def __init__(self) -> None:
        self.count = 0
        self.status = "200 OK"
        self.more: list[tuple[str, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.count += 1
        number = self.count
        assert self.gate.wait(PATIENCE_SECONDS)
        start_response(self.status, [("X-Request-Id", environ["HTTP_X_REQUEST_ID"]), ("X-Kind", "route"), *self.more])
        return iter([b"answer ", str(number).encode()])


@pytest.fixture
def app() -> CountingApp:
    return CountingApp()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kept(app: CountingApp, clock: FakeClock) -> Microcache:
    return Microcache(app, {"/livez", "/v1/models/a", "/v1/models/b"}, KEEP_SECONDS, clock)


def ask(kept: Microcache, request_id: str = "request-1", **environ: str) -> tuple[str, dict[str, str], bytes]:
    noted: list[tuple[str, list[tuple[str, str]]]] = []
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/livez", "HTTP_HOST": "a", "HTTP_X_REQUEST_ID": request_id}
    body = b"".join(kept({**request, **environ}, lambda status, headers: noted.append((status, headers))))
    (status, headers) = noted[0]
    assert len({name for name, _ in headers}) == len(headers)
    return status, dict(headers), body


def test_second_request_gets_the_same_answer_under_its_own_id(kept: Microcache, app: CountingApp) -> None:
    first = ask(kept, "request-1")
    second = ask(kept, "request-2")

    assert first == ("200 OK", {"X-Kind": "route", "X-Request-Id": "request-1"}, b"answer 1")
    assert second == ("200 OK", {"X-Kind": "route", "X-Request-Id": "request-2"}, b"answer 1")
    assert app.count == 1


def test_harmful_request_id_is_not_repeated(kept: Microcache) -> None:
    ask(kept)
    _, headers, _ = ask(kept, "no\r\nSet-Cookie: x")

    assert headers["X-Request-Id"].isalnum()


def test_answer_is_fetched_anew_after_its_time(kept: Microcache, clock: FakeClock) -> None:
    ask(kept)
    clock.now += KEEP_SECONDS

    assert ask(kept)[2] == b"answer 2"


def test_while_one_fetches_anew_the_others_get_the_old_answer(
    kept: Microcache, app: CountingApp, clock: FakeClock
) -> None:
    ask(kept)
    clock.now += KEEP_SECONDS
    app.gate.clear()
    fetcher = threading.Thread(target=ask, args=(kept,))
    fetcher.start()
    while app.count < 2:
        assert fetcher.is_alive()

    old = ask(kept)[2]
    app.gate.set()
    fetcher.join()

    assert old == b"answer 1"
    assert ask(kept)[2] == b"answer 2"


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "POST"},
        {"REQUEST_METHOD": "HEAD"},
        {"PATH_INFO": "/v1/classify"},
        {"QUERY_STRING": "x=1"},
        {"HTTP_COOKIE": "session=1"},
        {"HTTP_AUTHORIZATION": "Bearer 1"},
        {"HTTP_X_API_TOKEN": "1"},
        {"HTTP_X_REQUEST_TIMEOUT": "1"},
    ],
)
def test_request_unlike_the_others_is_passed_on(kept: Microcache, environ: dict[str, str]) -> None:
    ask(kept)

    assert ask(kept, **environ)[2] == b"answer 2"
    assert ask(kept)[2] == b"answer 1"


def test_paths_do_not_share_an_answer_and_others_are_passed_on(kept: Microcache) -> None:
    answers = [ask(kept, PATH_INFO=path)[2] for path in ("/v1/models/a", "/v1/models/b", "/v1/models/a", "/v1/models")]

    assert answers == [b"answer 1", b"answer 2", b"answer 1", b"answer 3"]


def test_hosts_do_not_share_an_answer(kept: Microcache) -> None:
    ask(kept)

    assert ask(kept, HTTP_HOST="b")[2] == b"answer 2"


def test_only_success_is_kept(kept: Microcache, app: CountingApp, clock: FakeClock) -> None:
    ask(kept)
    clock.now += KEEP_SECONDS
    app.status = "503 SERVICE UNAVAILABLE"

    assert [ask(kept)[2] for _ in range(2)] == [b"answer 2", b"answer 3"]


def test_forged_hosts_do_not_fill_the_memory(kept: Microcache) -> None:
    for number in range(3 * MAX_KEPT):
        ask(kept, HTTP_HOST=str(number))

    assert len(kept._kept) <= MAX_KEPT


@pytest.mark.parametrize("name", ["Set-Cookie", "RateLimit-Remaining", "RateLimit-Policy", "ratelimit", "Vary"])
def test_answer_with_what_is_meant_for_one_caller_is_kept_for_nobody(
    kept: Microcache, app: CountingApp, name: str
) -> None:
    app.more = [(name, "theirs")]
    ask(kept)
    app.more = []

    assert ask(kept)[1] == {"X-Kind": "route", "X-Request-Id": "request-1"}
    assert app.count == 2


def test_answer_from_below_another_prefix_is_another(kept: Microcache) -> None:
    ask(kept)

    assert ask(kept, SCRIPT_NAME="/below")[2] == b"answer 2"
    assert ask(kept, **{"wsgi.url_scheme": "https"})[2] == b"answer 3"


def test_limit_of_requests_counts_what_might_have_been_kept(tmp_path: Path) -> None:
    app = fakes.make_app(tmp_path, request_microcache_ms=10_000, rate_limit_per_address=("3/minute",))
    answers = [app.test_client().get("/v1/models") for _ in range(5)]

    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert [each.headers["RateLimit-Remaining"] for each in answers] == ["2", "1", "0", "0", "0"]
    assert len({each.headers["X-Request-Id"] for each in answers}) == 5
