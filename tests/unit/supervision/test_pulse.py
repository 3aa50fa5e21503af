"""A thread that computes on and on is seen; one that begins something new now and then, or may, is not."""

from __future__ import annotations

import _thread
import contextlib
import os
import subprocess
import sys
import threading

import pytest

from app.supervision import pulse
from app.supervision.pulse import LOOK_SECONDS, REQUEST_SECONDS, Heat
from tests.fakes import FakeClock

# Two threads of a process: printed are how hot each is, and which share of a core both got.
BESIDE = """
import os, sys, threading, time
from app.supervision.pulse import Heat

looping, working = Heat(), Heat()

def loop():
    while True:
        pass

def work():
    while True:
        working.begin()
        until = time.thread_time() + 0.0001
        while time.thread_time() < until:
            pass

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=target, daemon=True) for target in (loop, work)]
for thread in threads:
    thread.start()
began, used, hot = time.monotonic(), time.process_time(), (0.0, 0.0)
while hot[0] < 0.5 and time.monotonic() < began + 30:
    time.sleep(0.5)
    hot = [heat.seconds(lambda: {thread.native_id}) for heat, thread in zip((looping, working), threads)]
print(*hot, (time.process_time() - used) / (time.monotonic() - began))
"""


class Threads:
    """Made-up processor times of threads; ``busy`` use a whole core."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.times = dict.fromkeys((1, 2, threading.get_native_id()), 0.0)
        self.busy: set[int] = set()
        # Of the time that they are busy; otherwise they wait for a core.
        self.computing = 1.0
        self.computed = dict(self.times)
        self.used: float | None = None
        self.runnable: set[int] = set()
        self.heat = Heat(
            lambda: {each: (self.computed[each], busy - self.computed[each]) for each, busy in self.times.items()},
            lambda: sum(self.computed.values()) if self.used is None else self.used,
            self.clock,
            lambda thread: thread in self.runnable,
        )

    def run(self, seconds: float, only: set[int] | None = None) -> float:
        found = 0.0
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.clock.now += LOOK_SECONDS
            for thread in self.busy:
                self.times[thread] += LOOK_SECONDS
                self.computed[thread] += LOOK_SECONDS * self.computing
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


@pytest.mark.parametrize(("computing", "told"), [(0.5, 10), (0.2, 10), (0.1, 5), (0.02, 1)])
def test_thread_that_gets_little_of_a_core_is_judged_by_what_it_computed(
    threads: Threads, computing: float, told: float
) -> None:
    threads.busy, threads.computing = {1}, computing

    assert threads.run(10) == pytest.approx(told, abs=2 * LOOK_SECONDS)


def test_pause_ends_it(threads: Threads) -> None:
    threads.busy = {1}
    threads.run(10)
    threads.busy = set()

    assert threads.run(1) == 0


def test_thread_that_never_gets_a_core_is_hot_once_it_was(threads: Threads) -> None:
    """A wait is counted when it is over; until then the thread is runnable, and its process has used nothing."""
    threads.busy, threads.runnable = {1}, {1, 2}
    threads.run(2)
    threads.busy, threads.used = set(), sum(threads.times.values())

    assert threads.run(4) == pytest.approx(6, abs=2 * LOOK_SECONDS)
    threads.runnable = set()
    assert threads.run(1) == 0


def test_process_that_got_a_core_only_now_has_been_hot_since(threads: Threads) -> None:
    """At a great load it gets none for several looks; then all of its wait is counted."""
    threads.busy = {1}
    threads.run(1)
    threads.busy = set()
    assert threads.run(1) == 0
    threads.busy, threads.used = {1}, sum(threads.times.values())
    assert threads.run(3) == 0
    threads.used += 0.1

    assert threads.run(LOOK_SECONDS) >= 3


def test_what_began_is_forgotten_with_its_thread(threads: Threads) -> None:
    threads.heat.begin()
    assert threads.heat.begun() == {threading.get_native_id()}

    del threads.times[threading.get_native_id()]
    threads.busy = {1}
    threads.run(1)

    assert threads.heat.begun() == set()


def test_loop_and_busy_thread_are_told_apart_beside_busy_processes() -> None:
    """On one core, shared with four others; the thread that begins something now and then is no loop."""
    on_core = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c"]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(subprocess.Popen([*on_core, BESIDE], stdin=pipe, stdout=pipe, text=True))
        stack.callback(ours.kill)
        assert ours.stdout is not None
        assert ours.stdout.readline() == "ready\n"
        for _ in range(4):
            stack.callback(stack.enter_context(subprocess.Popen([*on_core, "while True: pass"])).kill)
        told, _ = ours.communicate("\n", timeout=60)

    loop, working, share = map(float, told.split())
    assert share < 0.5
    assert loop >= 0.5
    assert working == 0


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
