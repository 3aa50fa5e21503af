"""A store that is down or slow costs a request a moment, and no error."""

from __future__ import annotations

from typing import Any

import pytest

from app.cache.guarded_store import SLOW_SECONDS, GuardedStore
from app.storage.circuit_breaker import CircuitBreaker
from tests.fakes import FakeClock


class Backend:
    """As one of Flask-Caching; may be down, or slow."""

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


@pytest.fixture
def backend() -> Backend:
    return Backend(FakeClock())


@pytest.fixture
def store(backend: Backend) -> GuardedStore:
    return GuardedStore(backend, CircuitBreaker("it", clock=backend.clock))


def test_well_store_is_asked_each_time(store: GuardedStore, backend: Backend) -> None:
    assert [store.get_many(["a"]), store.get_many(["b"])] == [["value of a"], ["value of b"]]
    assert (store.set_many({"a": "1"}), backend.asked) == (True, 3)


def test_failure_is_no_answer_and_the_last_question(store: GuardedStore, backend: Backend) -> None:
    backend.error = ConnectionError("refused")

    assert store.get_many(["a", "b"]) == [None, None]
    assert not store.set_many({"a": "1"})
    assert backend.asked == 1


def test_slow_answers_are_left_and_slow_writing_is_not(store: GuardedStore, backend: Backend) -> None:
    backend.seconds = SLOW_SECONDS * 1.1

    assert store.set_many({"a": "1"})
    assert store.get_many(["a"]) == ["value of a"]
    assert store.get_many(["a"]) == [None]
