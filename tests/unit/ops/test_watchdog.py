"""The watchdog ends an engine that hangs, and no other."""

from __future__ import annotations

import pytest

from app.errors import EngineAwayError
from app.ops.watchdog import Watchdog
from tests.fakes import FakeClock, FakeEngine

HANG_SECONDS = 60.0
PID = 4242


class Watch:
    """A watchdog over a FakeEngine, and whom it ended."""

    def __init__(self) -> None:
        self.engine = FakeEngine(pid=PID)
        self.clock = FakeClock()
        self.ended: list[int] = []
        self.dog = Watchdog(self.engine, HANG_SECONDS, clock=self.clock, kill=self.ended.append)

    def look_after(self, seconds: float) -> list[int]:
        self.clock.now += seconds
        self.dog.look()
        return self.ended

    def fall_silent(self) -> None:
        self.engine.error = EngineAwayError("no answer")


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_engine_that_answers_is_left_alone(watch: Watch) -> None:
    assert [watch.look_after(1000) for _ in range(3)][-1] == []


def test_engine_that_is_too_long_at_one_batch_is_ended(watch: Watch) -> None:
    watch.engine.oldest_batch_seconds = 60.0
    assert watch.look_after(1) == []

    watch.engine.oldest_batch_seconds = 60.1
    assert watch.look_after(1) == [PID]


def test_engine_that_is_silent_for_too_long_is_ended(watch: Watch) -> None:
    watch.fall_silent()

    assert watch.look_after(1) == []
    assert watch.look_after(60) == []
    assert watch.look_after(0.1) == [PID]


def test_silence_is_counted_anew_after_an_answer(watch: Watch) -> None:
    watch.fall_silent()
    watch.look_after(1)
    watch.look_after(59)
    watch.engine.error = None
    watch.look_after(1)
    watch.fall_silent()
    watch.look_after(1)

    assert watch.look_after(60) == []
    assert watch.look_after(1) == [PID]


def test_silence_of_a_new_process_is_counted_anew(watch: Watch) -> None:
    watch.fall_silent()
    watch.look_after(1)
    watch.engine.pid = PID + 1

    assert watch.look_after(100) == []
    assert watch.look_after(61) == [PID + 1]


def test_engine_that_is_away_is_apaches_to_start(watch: Watch) -> None:
    watch.fall_silent()
    watch.engine.pid = None

    assert [watch.look_after(1000) for _ in range(3)][-1] == []


def test_engine_that_was_ended_gets_time_to_start(watch: Watch) -> None:
    watch.fall_silent()
    watch.look_after(1)
    watch.look_after(61)

    assert watch.look_after(1) == [PID]
    assert watch.look_after(30) == [PID]


def test_process_that_has_ended_by_itself_is_no_trouble() -> None:
    def kill(_: int) -> None:
        raise ProcessLookupError

    engine = FakeEngine(pid=PID, oldest_batch_seconds=1e3)

    Watchdog(engine, HANG_SECONDS, clock=FakeClock(), kill=kill).look()

    assert engine.status_count == 1
