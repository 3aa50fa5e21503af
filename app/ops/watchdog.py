"""Ends an engine, or a jobs' worker, that hangs; Apache starts a new one. Runs in the ops process, outside of both.

A crash needs no watchdog: Apache sees it. A process that is stopped, or whose prediction never ends, does.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from app.errors import CaskError
from app.jobs.heartbeat import IMAGE_SECONDS, Heartbeat

log = logging.getLogger("cask.ops")

PERIOD_SECONDS = 1.0


class WatchedEngine(Protocol):
    """What the watchdog needs of the door to the engine."""

    def status(self) -> dict[str, Any]: ...

    def peer_pid(self) -> int | None: ...


class Watchdog:
    """Looks at the engine once a second."""

    def __init__(
        self,
        engine: WatchedEngine,
        hang_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        kill: Callable[[int], None] = lambda pid: os.kill(pid, signal.SIGKILL),
        note: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """``note`` is told whom it ends: the process that takes the place counts why."""
        self._engine = engine
        self._hang_seconds = hang_seconds
        self._clock = clock
        self._kill = kill
        self._note = note
        self._silent_pid: int | None = None
        self._silent_since = 0.0

    def start(self) -> None:
        """Watch in a thread until the process ends."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def look(self) -> None:
        """One look; ends the engine when it has been silent, or at one batch, for longer than ``hang_seconds``."""
        try:
            status = self._engine.status()
        except CaskError:
            self._look_at_silence(self._engine.peer_pid())
            return
        self._silent_pid = None
        if status["oldest_batch_seconds"] > self._hang_seconds:
            self._end(status["pid"], f"it has been at one batch for {status['oldest_batch_seconds']:.0f} s")

    def _look_at_silence(self, pid: int | None) -> None:
        """``pid`` listens but did not answer; None means that nobody listens, which Apache mends."""
        if pid is None or pid != self._silent_pid:
            self._silent_pid, self._silent_since = pid, self._clock()
        elif self._clock() - self._silent_since > self._hang_seconds:
            self._end(pid, f"it has not answered for {self._clock() - self._silent_since:.0f} s")

    def _end(self, pid: int, reason: str) -> None:
        log.error("ending the engine %d: %s; Apache starts a new one", pid, reason)
        self._silent_pid = None
        self._note(pid)
        try:
            self._kill(pid)
        except ProcessLookupError:
            log.info("the engine %d had ended already", pid)

    def _run(self) -> None:
        watch(self.look)


class JobsWatchdog:
    """Looks at the sign of life of the jobs' worker once a second."""

    def __init__(
        self,
        read: Callable[[], Heartbeat | None],
        hang_seconds: float,
        kill: Callable[[int], None] = lambda pid: os.kill(pid, signal.SIGKILL),
        note: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """``note`` as for the engine's."""
        self._note = note
        self._read = read
        self._hang_seconds = hang_seconds
        self._kill = kill

    def start(self) -> None:
        """Watch in a thread until the process ends."""
        threading.Thread(target=watch, args=(self.look,), name="jobs-watchdog", daemon=True).start()

    def look(self) -> None:
        """One look; ends a worker that gave no sign, or was at one image, for longer than ``hang_seconds``."""
        found = self._read()
        if found is None or not found.is_alive:
            return
        silent_seconds = found.age_seconds
        # Each image has its deadline; what lasts longer than that and this hangs.
        busy_seconds = found.busy_seconds - IMAGE_SECONDS
        if max(silent_seconds, busy_seconds) <= self._hang_seconds:
            return
        reason = "gave no sign" if silent_seconds > busy_seconds else "has been at one image"
        seconds = silent_seconds if silent_seconds > busy_seconds else found.busy_seconds
        log.error("ending the jobs' worker %d: it %s for %.0f s; Apache starts a new one", found.pid, reason, seconds)
        self._note(found.pid)
        try:
            self._kill(found.pid)
        except ProcessLookupError:
            log.info("the jobs' worker %d had ended already", found.pid)


def watch(look: Callable[[], None]) -> None:
    """Look once a second, for ever."""
    while True:
        time.sleep(PERIOD_SECONDS)
        try:
            look()
        except Exception:
            log.exception("the watchdog stumbled; it goes on")
