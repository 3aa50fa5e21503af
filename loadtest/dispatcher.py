"""The open model: requests start when they are meant to, whatever the server does. Runs inside a worker, on gevent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import numpy as np
from gevent.pool import Pool

from loadtest.outcomes import Outcome
from loadtest.precise_timer import Timer
from loadtest.replay import Replayer
from loadtest.request_log import Recorder
from loadtest.scenarios import Caller
from loadtest.sender import WATCH_SECONDS, Sender
from loadtest.turns import Turn

FLUSH_SECONDS = 0.25
AHEAD = 16
REFUSED_PAUSE_SECONDS = 0.05


class GreenletPool:
    """At most ``size`` greenlets, each of which does one piece of work after another.

    A new one is started only where none is idle: each has a stack of its own, for which the kernel is asked, and given
    back at its end.
    """

    def __init__(self, size: int, work: Callable[..., object]) -> None:
        self._pool, self._work = Pool(size), work
        self._idle: list[gevent.Greenlet] = []
        self._hub = gevent.get_hub()
        self._is_dismissed = False

    def begin(self, *arguments: Any) -> bool:
        """Have somebody do it, as soon as the others let go; False when all are busy."""
        if self._idle:
            # The one that was busy last: what it touches is still in the processor's caches.
            self._hub.loop.run_callback(self._idle.pop().switch, arguments)
        elif self._pool.free_count() > 0:
            self._pool.spawn(self._serve, arguments)
        else:
            return False
        return True

    def dismiss(self) -> None:
        """Let everybody end with what is at work."""
        self._is_dismissed = True
        while self._idle:
            self._hub.loop.run_callback(self._idle.pop().switch, None)

    def join(self, seconds: float) -> bool:
        """Wait so long for all to end; whether some have not."""
        self._pool.join(seconds)
        return bool(self._pool)

    def _serve(self, arguments: tuple[Any, ...] | None) -> None:
        while arguments is not None:
            self._work(*arguments)
            if self._is_dismissed:
                return
            self._idle.append(gevent.getcurrent())
            arguments = self._hub.switch()


class Dispatcher:
    """Drives a sender through a schedule, or through callers who wait for their answers."""

    def __init__(
        self,
        sender: Sender,
        caller: Caller | Replayer,
        recorder: Recorder,
        clock: Callable[[], float],
        *,
        stop_when_bad: float,
        seed: int = 0,
    ) -> None:
        self._sender, self._caller, self._recorder, self._clock = sender, caller, recorder, clock
        self._stop_when_bad = stop_when_bad
        self._chance = random.Random(seed)  # noqa: S311 - chance, not a secret
        self.stopped_early = ""

    def open(self, moments: np.ndarray, slots: int) -> None:
        """Start each request at its moment, at most ``slots`` at once; wait for the last answer.

        An arrival without a free slot is recorded as dropped, never delayed.
        """
        crew, flushed, alarm, turns = GreenletPool(slots, self._sender.send), 0.0, Timer(), self._turns()
        for intended in moments.tolist():
            # Made while there is time, so that it costs none when the moment has come.
            turn = next(turns)
            while (wait := intended - self._clock()) > 0:
                if wait > FLUSH_SECONDS / 5 and self._clock() - flushed > FLUSH_SECONDS:
                    self._recorder.flush()
                    flushed = self._clock()
                alarm.sleep(min(wait, FLUSH_SECONDS))
            if self._must_stop():
                break
            if not crew.begin(turn, intended):
                self._sender.drop(turn, intended)
            if self._clock() - flushed > FLUSH_SECONDS:
                self._recorder.flush()
                flushed = self._clock()
        alarm.close()
        crew.dismiss()
        while crew.join(FLUSH_SECONDS):
            self._recorder.flush()

    def _turns(self) -> Iterator[Turn]:
        """One after another, made several at once: then what makes them is in the processor's caches."""
        while True:
            yield from [self._caller.next() for _ in range(AHEAD)]

    def closed(self, callers: int, from_second: float, until_second: float, think_seconds: float) -> None:
        """So many callers that ask, wait, think and ask again, until a moment; a refused one waits a little.

        They think for ``think_seconds`` on average, each time for another span (exponential), as people do.
        """
        pool = Pool(callers)
        for _ in range(callers):
            pool.spawn(self._ask_again_and_again, from_second, until_second, think_seconds)
        while pool:
            pool.join(FLUSH_SECONDS)
            self._recorder.flush()

    def _ask_again_and_again(self, from_second: float, until_second: float, think_seconds: float) -> None:
        gevent.sleep(max(0.0, from_second - self._clock()))
        while (now := self._clock()) < until_second and not self._must_stop():
            outcome = self._sender.send(self._caller.next(), now)
            think = self._chance.expovariate(1 / think_seconds) if think_seconds else 0.0
            gevent.sleep(think if outcome == Outcome.RIGHT else max(think, REFUSED_PAUSE_SECONDS))

    def _must_stop(self) -> bool:
        if not self.stopped_early and self._stop_when_bad < 1 and self._sender.bad_share() > self._stop_when_bad:
            self.stopped_early = (
                f"{self._sender.bad_share():.0%} of the last {WATCH_SECONDS:g} s failed or were dropped"
            )
        return bool(self.stopped_early)


def clock_from(epoch: float) -> Callable[[], float]:
    """Seconds since a moment of the wall clock that all workers agree on; it does not jump when the wall clock does."""
    began = time.perf_counter() - (time.time() - epoch)
    return lambda: time.perf_counter() - began
