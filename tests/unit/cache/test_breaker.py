"""A store that is down or slow is asked once, and then left alone until somebody has seen it well."""

from __future__ import annotations

from typing import Any

import pytest

from app.cache.breaker import SLOW_SECONDS, Breaker
from tests.fakes import FakeClock


class Store:
    """As a backend of Flask-Caching; may be down, or slow."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds = 0.0
        self.error: Exception | None = None
        self.asked = 0

    def get_many(self, *keys: str) -> list[Any]:
        self.asked += 1
        self.clock.now += self.seconds
        if self.error:
            raise self.error
        return [f"value of {key}" for key in keys]

    def set_many(self, texts: Any) -> list[str]:
        return self.get_many(*texts)

    def probe(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Store:
    return Store(clock)


@pytest.fixture
def breaker(store: Store, clock: FakeClock) -> Breaker:
    return Breaker(store, store.probe, clock)


def test_well_store_is_asked_each_time(breaker: Breaker, store: Store) -> None:
    assert [breaker.get_many(["a"]), breaker.get_many(["b"])] == [["value of a"], ["value of b"]]
    assert store.asked == 2


@pytest.mark.parametrize("error", [ConnectionError("refused"), TimeoutError("late"), ValueError("odd")])
def test_after_a_failure_nobody_asks_until_it_was_seen_well(breaker: Breaker, store: Store, error: Exception) -> None:
    store.error = error

    assert breaker.get_many(["a", "b"]) == [None, None]
    assert breaker.get_many(["a"]) == [None]
    assert not breaker.set_many({"a": "1"})
    assert store.asked == 1
    breaker.probe()
    assert breaker.is_open
    store.error = None
    breaker.probe()
    assert breaker.get_many(["a"]) == ["value of a"]


def test_slow_answer_is_taken_and_is_the_last_one(breaker: Breaker, store: Store) -> None:
    store.seconds = SLOW_SECONDS * 1.1

    assert breaker.get_many(["a"]) == ["value of a"]
    assert breaker.get_many(["a"]) == [None]
    assert store.asked == 1


def test_trouble_before_the_first_use_is_told(store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker(store, store.probe, clock, trouble="it is not open yet")
    store.error = ConnectionError("certificate verify failed")
    breaker.probe()
    breaker.probe()

    assert [record.message for record in caplog.records] == [
        "kept answers are left alone until they can be used again: ConnectionError: certificate verify failed"
    ]


def test_trouble_is_told_once(breaker: Breaker, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.error = ConnectionError("refused")
    for _ in range(3):
        breaker.get_many(["a"])
        breaker.probe()
    store.error = None
    breaker.probe()
    breaker.probe()

    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "kept answers are left alone until they can be used again",
        "kept answers can be used again",
    ]
