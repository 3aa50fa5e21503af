"""The watchdog ends an engine that answers nobody, and no other."""

from __future__ import annotations

import pytest

from app.errors import EngineAwayError
from app.supervision.watchdog import MOST_LOOK_SECONDS, Watchdog
from tests.fakes import FakeClock, FakeEngine

HANG_SECONDS = 10.0
PID = 4242


class Watch:
    """A watchdog over a FakeEngine, and whom it ended."""

    def __init__(self) -> None:
        self.engine = FakeEngine(pid=PID)
        self.clock = FakeClock()
        self.ended: list[int] = []
        self.pid: int | None = PID
        self.is_loading = False
        self.dog = Watchdog(
            self.engine,
            HANG_SECONDS,
            pid=lambda: self.pid,
            is_loading=lambda: self.is_loading,
            clock=self.clock,
            kill=self.ended.append,
        )

    def look_for(self, seconds: float) -> list[int]:
        """Look once a second."""
        for _ in range(round(seconds)):
            self.clock.now += 1
            self.dog.look()
        return self.ended

    def fall_silent(self) -> None:
        self.engine.error = EngineAwayError("no answer")


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_engine_that_answers_is_left_alone(watch: Watch) -> None:
    assert watch.look_for(100) == []


def test_engine_that_is_silent_for_too_long_is_ended(watch: Watch) -> None:
    watch.fall_silent()

    assert watch.look_for(11) == []
    assert watch.look_for(1) == [PID]


def test_full_queue_hides_nobody(watch: Watch) -> None:
    """Whoever connects to a full queue learns no number: the fault itself takes that sign away."""
    watch.fall_silent()
    watch.engine.pid = None

    assert watch.look_for(12) == [PID]


def test_socket_tells_whom_shared_memory_does_not(watch: Watch) -> None:
    watch.fall_silent()
    watch.pid = None

    assert watch.look_for(12) == [PID]


def test_silence_is_counted_anew_after_an_answer(watch: Watch) -> None:
    watch.fall_silent()
    watch.look_for(10)
    watch.engine.error = None
    watch.look_for(1)
    watch.fall_silent()

    assert watch.look_for(11) == []
    assert watch.look_for(1) == [PID]


def test_silence_of_a_new_process_is_counted_anew(watch: Watch) -> None:
    watch.fall_silent()
    watch.look_for(10)
    watch.pid = PID + 1

    assert watch.look_for(11) == []
    assert watch.look_for(1) == [PID + 1]


def test_engine_that_is_away_is_apaches_to_start(watch: Watch) -> None:
    watch.fall_silent()
    watch.engine.pid = watch.pid = None

    assert watch.look_for(100) == []


def test_machine_that_slept_has_not_been_silent(watch: Watch) -> None:
    watch.fall_silent()
    watch.look_for(2)
    watch.clock.now += 3600

    assert watch.look_for(HANG_SECONDS - 2 - MOST_LOOK_SECONDS) == []


def test_engine_that_loads_is_given_longer(watch: Watch) -> None:
    watch.fall_silent()
    watch.is_loading = True

    assert watch.look_for(60) == []
    assert watch.look_for(2) == [PID]


def test_process_that_has_ended_by_itself_is_no_trouble(watch: Watch) -> None:
    def kill(_: int) -> None:
        raise ProcessLookupError

    watch.dog._kill = kill
    watch.fall_silent()

    watch.look_for(12)
    assert watch.engine.status_count == 12
