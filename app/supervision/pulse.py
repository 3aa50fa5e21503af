"""This process's sign of life: given four times a second by a thread that needs Python's lock, into shared memory.

A process that is stopped, or whose lock is never let go, gives none. One that loops gives signs, so the thread looks at
itself too: a thread that computes on and on without beginning anything new is stuck.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.host import machine
from app.telemetry import metrics, shards

log = logging.getLogger("cask.web")

PERIOD_SECONDS = 0.25
# Below STATE_DIR: there while the ops process gives no sign of life.
SILENCE = Path("run", "ops-is-silent")
LOOK_SECONDS = 0.5
# Of the time, computing or waiting for a core. A loop shares Python's lock with the other threads.
HOT_SHARE = 0.5
# Of one core. Nearly all looks end at a process that uses less, as a look at a thread costs 9 µs. A loop still gets it
# at a load of 200 on two cores.
LEAST_SHARE = 0.01
# Where cores are short, all takes long: a thread that gets less than a fifth of one is judged by what it computed.
STARVED_TIMES = 5.0
# A load that lasts longer passes for hung: the process is then watched as closely as without it.
LOAD_SECONDS = 900.0
# What a request may compute by itself before it passes for a loop: the longest takes a second.
REQUEST_SECONDS = 3.0


@dataclass
class _Hot:
    """Since when a thread has been hot, and what it had computed by then."""

    since: float
    computed: float


class Heat:
    """For how long some thread of this process has computed without a pause and without beginning anything new."""

    def __init__(
        self,
        look: Callable[[], dict[int, tuple[float, float]]] = machine.thread_seconds,
        used: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
        is_runnable: Callable[[int], bool] = machine.thread_is_runnable,
    ) -> None:
        """``look``: what each thread has computed and waited for a core; ``used``: processor time of all together."""
        self._look, self._used, self._clock, self._is_runnable = look, used, clock, is_runnable
        self._looked_at, self._used_before = clock(), used()
        # When each thread was looked at last, and what was seen.
        self._before_at = self._looked_at
        self._before: dict[int, tuple[float, float]] = {}
        self._hot: dict[int, _Hot] = {}
        # When each thread last began something, by the kernel's number of it.
        self._began: dict[int, float] = {}
        self._exempt: set[int] = set()

    def begin(self) -> None:
        """This thread begins something new."""
        self._began[threading.get_native_id()] = self._clock()

    def begun(self) -> set[int]:
        """The threads that have begun something, by the kernel's numbers of them."""
        return set(self._began)

    def is_exempt(self) -> bool:
        """Whether this thread may compute for as long as it likes at the moment."""
        return threading.get_native_id() in self._exempt

    @contextlib.contextmanager
    def exempt(self) -> Iterator[None]:
        """Within it this thread may compute for as long as it likes."""
        thread = threading.get_native_id()
        is_outermost = not self.is_exempt()
        self._exempt.add(thread)
        try:
            yield
        finally:
            if is_outermost:
                self._exempt.discard(thread)

    def seconds(self, only: Callable[[], set[int]] | None = None) -> float:
        """The longest of all threads. ``only``: which threads count; those of libraries are not ours to judge."""
        now, used = self._clock(), self._used()
        span, busy = now - self._looked_at, used - self._used_before
        self._looked_at, self._used_before = now, used
        # One that was hot may have waited for a core ever since.
        if busy < LEAST_SHARE * span and not self._hot:
            return 0.0
        begun, seen = self.begun(), self._look()
        for ended in begun - seen.keys():
            self._began.pop(ended, None)
        hot = {thread for thread in seen if self._is_hot(thread, sum(seen[thread]), now - self._before_at)}
        hot -= self._exempt
        if only is not None:
            hot &= only()
        self._hot = {thread: self._now_hot(thread, seen[thread][0]) for thread in hot}
        self._before, self._before_at = seen, now
        return max([0.0, *(self._age(thread, now, seen[thread][0]) for thread in hot)])

    def _is_hot(self, thread: int, busy: float, span: float) -> bool:
        """The kernel counts a wait when it is over: after seconds, where a quota or a full machine leaves no core."""
        before = self._before.get(thread)
        if before is None:
            return False
        return busy - sum(before) >= HOT_SHARE * span or (thread in self._hot and self._is_runnable(thread))

    def _now_hot(self, thread: int, computed: float) -> _Hot:
        hot = self._hot.get(thread) or _Hot(self._before_at, self._before[thread][0])
        began = self._began.get(thread, 0.0)
        return _Hot(began, computed) if began > hot.since else hot

    def _age(self, thread: int, now: float, computed: float) -> float:
        hot = self._hot[thread]
        age = min(now - hot.since, STARVED_TIMES * (computed - hot.computed))
        return age - REQUEST_SECONDS if thread in self._began else age


heat = Heat()
# When each load that goes on began.
_loading: list[float] = []
_is_stopping = False
_thread: threading.Thread | None = None
_stuck_seconds: Callable[[], float] = float
_lock = threading.Lock()


def begin() -> None:
    """Called with each request: this thread begins something new."""
    heat.begin()


def answered() -> None:
    """Called when a request was answered."""
    metrics.share().answered()


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Within it the process may be silent for long: libraries that are read from a slow disk hold Python's lock."""
    began = time.monotonic()
    with _lock:
        _loading.append(began)
    beat(0.0)
    try:
        with heat.exempt():
            yield
    finally:
        with _lock:
            _loading.remove(began)
        # At once: one that is stopped right after it would else pass for loading.
        beat(0.0)


def stopping() -> None:
    """This process finishes what it has and then ends: it need answer nobody any more."""
    global _is_stopping
    _is_stopping = True
    beat(0.0)


def beat(stuck_seconds: float) -> None:
    """Give one sign."""
    mood = shards.STOPPING if _is_stopping else shards.LOADING if _is_loading() else shards.SERVING
    metrics.share().beat(stuck_seconds, mood)


def _is_loading() -> bool:
    with _lock:
        return any(time.monotonic() - began < LOAD_SECONDS for began in _loading)


def start(stuck_seconds: Callable[[], float] = lambda: 0.0) -> None:
    """Give signs in a thread until the process ends. ``stuck_seconds``: what the process knows of itself besides.

    One thread a process. Called again, what the process knows is asked of the newest.
    """
    global _thread, _stuck_seconds
    _stuck_seconds = stuck_seconds
    if _thread is not None and _thread.is_alive():
        return
    # Who starts us goes on starting the process.
    begin()
    _thread = threading.Thread(target=_run, name="pulse", daemon=True)
    _thread.start()


def _ours() -> set[int]:
    """Threads of Python, and those that have begun a request.

    A runtime's own compute for hours. mod_wsgi's thread that takes in requests serves all callers without a pause, and
    where cores are short it waits for one nearly all the time.
    """
    of_python = {each.native_id for each in threading.enumerate() if each.native_id is not None}
    return of_python | heat.begun()


def _run() -> None:
    looked_at, hot = 0.0, 0.0
    # Whether this thread itself goes on is what its signs say.
    with heat.exempt():
        while True:
            try:
                if time.monotonic() - looked_at >= LOOK_SECONDS:
                    looked_at, hot = time.monotonic(), heat.seconds(_ours)
                beat(max(hot, _stuck_seconds()))
            except Exception:
                log.exception("the heartbeat failed; will retry")
            time.sleep(PERIOD_SECONDS)
