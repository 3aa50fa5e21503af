"""A thread that computes on and on is seen; one that begins something new now and then, or may, is not."""

from __future__ import annotations

import _thread
import threading

import pytest

from app.supervision import pulse
from app.supervision.pulse import LOOK_SECONDS, REQUEST_SECONDS, Heat
from tests.fakes import FakeClock


class Threads:
    """Made-up processor times of threads; ``busy`` use a whole core."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.times = dict.fromkeys((1, 2, threading.get_native_id()), 0.0)
        self.busy: set[int] = set()
        self.heat = Heat(lambda: dict(self.times), lambda: sum(self.times.values()), self.clock)

    def run(self, seconds: float, only: set[int] | None = None) -> float:
        found = 0.0
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.clock.now += LOOK_SECONDS
            for thread in self.busy:
                self.times[thread] += LOOK_SECONDS
            found = self.heat.seconds(None if only is None else lambda: only)
        return found


@pytest.fixture
def threads() -> Threads:
    return Threads()


def test_idle_process_is_cool(threads: Threads) -> None:
    assert threads.run(10) == 0


def test_thread_that_computes_on_and_on_is_hot(threads: Threads) -> None:
    threads.busy = {1}

    assert threads.run(10) == pytest.approx(10, abs=2 * LOOK_SECONDS)


def test_threads_that_take_turns_are_cool(threads: Threads) -> None:
    for turn in range(20):
        threads.busy = {1 + turn % 2}
        assert threads.run(1) <= 1 + LOOK_SECONDS


def test_pause_ends_it(threads: Threads) -> None:
    threads.busy = {1}
    threads.run(10)
    threads.busy = set()

    assert threads.run(1) == 0


def test_thread_that_begins_new_requests_is_cool(threads: Threads) -> None:
    threads.busy = {threading.get_native_id()}
    for _ in range(20):
        threads.heat.begin()
        assert threads.run(1) <= 0

    assert threads.run(10) == pytest.approx(11 - REQUEST_SECONDS, abs=2 * LOOK_SECONDS)


def test_exempt_thread_may_compute(threads: Threads) -> None:
    threads.busy = {threading.get_native_id()}
    with threads.heat.exempt():
        with threads.heat.exempt():
            assert threads.run(20) == 0
        assert threads.run(20) == 0

    assert threads.run(5) > 3


def test_threads_of_others_do_not_count(threads: Threads) -> None:
    threads.busy = {2}

    assert threads.run(20, only={1}) == 0


def test_threads_of_a_server_count_once_they_have_begun_a_request() -> None:
    """Apache's module makes its threads in C; Python hears of those that call it."""
    ready, is_over, found = threading.Barrier(3), threading.Event(), []

    def serve(is_request: bool) -> None:
        if is_request:
            pulse.begin()
        found.append((is_request, threading.get_native_id()))
        ready.wait(10)
        is_over.wait(10)

    for is_request in (True, False):
        _thread.start_new_thread(serve, (is_request,))
    ready.wait(10)
    ours = pulse._ours()
    is_over.set()

    assert {is_request: native in ours for is_request, native in found} == {True: True, False: False}
    assert threading.get_native_id() in ours
