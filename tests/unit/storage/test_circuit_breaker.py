"""What fails is asked once, and then left alone until somebody has seen it well."""

from __future__ import annotations

import threading

import pytest

from app.storage import circuit_breaker
from app.storage.circuit_breaker import CircuitBreaker
from tests.fakes import FakeClock, eventually


class Service:
    """May be down, or slow."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds = 0.0
        self.error: Exception | None = None
        self.asked = 0
        self.may_probe = threading.Event()

    def ask(self) -> str:
        self.asked += 1
        self.clock.now += self.seconds
        if self.error:
            raise self.error
        return "answer"

    def probe(self) -> None:
        self.may_probe.wait()
        if self.error:
            raise self.error


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def service(clock: FakeClock) -> Service:
    return Service(clock)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


# ── tried by a thread beside the requests ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def probed(service: Service, clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("it", service.probe, pause_seconds=0.001, clock=clock)


@pytest.mark.parametrize("error", [ConnectionError("refused"), TimeoutError("late"), ValueError("odd")])
def test_after_a_failure_nobody_asks_until_it_was_seen_well(
    probed: CircuitBreaker, service: Service, error: Exception
) -> None:
    service.error = error
    assert [probed.call(service.ask) for _ in range(3)] == [None] * 3
    assert (service.asked, probed.state) == (1, "open")
    probed.note_success()  # of one that was asked before
    assert probed.state == "open"

    service.error = None
    service.may_probe.set()

    eventually(lambda: probed.state == "closed", "the thread to find it well")
    assert probed.call(service.ask) == "answer"


def test_probe_that_fails_is_asked_again(probed: CircuitBreaker, service: Service, clock: FakeClock) -> None:
    service.error = ConnectionError("refused")
    probed.call(service.ask)
    service.may_probe.set()
    eventually(lambda: probed.rest_seconds > 0, "a first try")

    service.error = None
    clock.now += 1

    eventually(lambda: probed.state == "closed", "another try")


def test_slow_answer_is_taken_and_is_the_last_one(probed: CircuitBreaker, service: Service) -> None:
    service.seconds = 1.1

    assert probed.call(service.ask, slow_seconds=1.0) == "answer"
    assert probed.call(service.ask, slow_seconds=1.0) is None
    assert service.asked == 1


def test_one_that_begins_open_is_tried_when_it_is_first_needed(service: Service) -> None:
    breaker = CircuitBreaker("it", service.probe, is_open=True)
    service.may_probe.set()
    assert breaker._thread is None

    assert breaker.call(service.ask) is None

    eventually(lambda: breaker.call(service.ask) == "answer", "it to be found well")


# ── tried by a caller ────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_caller_tries_and_the_others_wait_for_what_it_finds(clock: FakeClock) -> None:
    breaker = CircuitBreaker("it", failures=3, pause_seconds=5.0, clock=clock)
    for _ in range(2):
        breaker.note_failure("late")
    breaker.note_success()
    for _ in range(2):
        breaker.note_failure("late")
    assert breaker.allows()
    breaker.note_failure("late")
    assert (breaker.allows(), breaker.rest_seconds) == (False, 5.0)
    clock.now += 5.0

    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert (breaker.state, breaker.rest_seconds) == ("half-open", 5.0)
    breaker.note_failure("late")
    assert (breaker.state, breaker.allows()) == ("open", False)
    clock.now += 5.0
    assert breaker.allows()
    breaker.note_success()
    assert breaker.state == "closed"


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_distinct_failure_is_logged_once_until_it_clears(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker("it", clock=clock)
    for number in range(20):
        breaker.note_failure(TimeoutError(f"no answer for {number} ms"))
        breaker.note_failure(ConnectionError("refused"))
    breaker.note_success()
    breaker.note_success()
    clock.now += circuit_breaker.LOG_PERIOD_SECONDS + 1
    breaker.note_failure(ConnectionError("refused"))

    assert messages(caplog) == [
        "it is not used until it works again: TimeoutError: no answer for 0 ms",
        "it is not used until it works again: ConnectionError: refused",
        "it is used again",
        "it is not used until it works again: ConnectionError: refused",
    ]


def test_many_short_outages_and_many_words_fill_no_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker("it", clock=clock)
    for _ in range(50):
        breaker.note_failure("slow")
        breaker.note_success()
    for number in range(100):
        breaker.note_failure("x" * number)

    assert len(caplog.records) <= 2
    clock.now += circuit_breaker.LOG_PERIOD_SECONDS + 1
    for number in range(100):
        breaker.note_failure("x" * number)
    assert len(caplog.records) <= 2 + circuit_breaker.MAX_LOGGED
