"""Ends an engine that lives but answers nobody; Apache starts a new one. Runs in the ops process, outside of it.

A crash needs no watchdog: Apache sees it. A process that gives no sign of life is the supervisor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from app.errors import CaskError
from app.supervision.supervisor import LOADING_SECONDS, MOST_SPAN_SECONDS, end, kill, watch

PERIOD_SECONDS = 1.0
# A look lasts as long as the engine's answer, at most a second.
MOST_LOOK_SECONDS = PERIOD_SECONDS + MOST_SPAN_SECONDS


class WatchedEngine(Protocol):
    """What the watchdog needs of the door to the engine."""

    def status(self) -> dict[str, Any]: ...

    def peer_pid(self) -> int | None: ...


class Watchdog:
    """Asks the engine how it is once a second."""

    def __init__(
        self,
        engine: WatchedEngine,
        hang_seconds: float,
        *,
        pid: Callable[[], int | None] = lambda: None,
        is_loading: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        kill: Callable[[int], None] = kill,
        note: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """``pid``: the engine's process by what no fault of its can remove; its socket's other end is asked second.

        ``note`` gets the process that is ended: its replacement counts why.
        """
        self._engine = engine
        self._hang_seconds = hang_seconds
        self._pid = pid
        self._is_loading = is_loading
        self._clock = clock
        self._kill = kill
        self._note = note
        self._looked_at = clock()
        self._silent_pid: int | None = None
        self._silent_seconds = 0.0

    def start(self) -> None:
        """Watch in a thread until the process ends."""
        watch(self.look, PERIOD_SECONDS, "watchdog")

    def look(self) -> None:
        """One look; ends an engine that has not answered for longer than ``hang_seconds``."""
        is_silent = False
        try:
            self._engine.status()
        except CaskError:
            is_silent = True
        now = self._clock()
        span, self._looked_at = min(now - self._looked_at, MOST_LOOK_SECONDS), now
        pid = (self._pid() or self._engine.peer_pid()) if is_silent else None
        # Nobody there is Apache's to mend; another one than before has its whole time.
        self._silent_seconds = self._silent_seconds + span if pid is not None and pid == self._silent_pid else 0.0
        self._silent_pid = pid
        patience = max(LOADING_SECONDS, self._hang_seconds) if self._is_loading() else self._hang_seconds
        if pid is not None and self._silent_seconds > patience:
            self._silent_pid = None
            end("engine", pid, f"has not answered for {self._silent_seconds:.0f} s", self._kill, self._note)
