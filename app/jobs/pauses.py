"""Jobs that wait because their model is not ready, so that all others go on. Knows no store and no engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 30.0
# A model that is not ready by then has failed to load, and its images get that as their answer. They can be tried
# again: POST /v1/jobs/<id>/retry.
PATIENCE_SECONDS = 3600.0


@dataclass
class _Pause:
    """Moments of the clock: ``began`` at the first refusal, ``until`` the next try."""

    began: float
    until: float
    seconds: float


class JobPauses:
    """Pauses by the id of the job, each twice as long as the one before. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}
        self._lock = threading.Lock()

    def current(self) -> tuple[str, ...]:
        """The jobs that are not to be asked now."""
        now = self._clock()
        with self._lock:
            return tuple(job_id for job_id, pause in self._pauses.items() if now < pause.until)

    def begin(self, job_id: str) -> bool:
        """Let this job wait. False: it has waited for ``PATIENCE_SECONDS``, and may not wait any longer."""
        now = self._clock()
        with self._lock:
            self._forget_old(now)
            pause = self._pauses.setdefault(job_id, _Pause(now, now, FIRST_SECONDS / 2))
            # Another image of the same job may have been refused a moment ago.
            if now >= pause.until:
                pause.seconds = min(pause.seconds * 2, LONGEST_SECONDS)
                pause.until = now + pause.seconds
            return now - pause.began < PATIENCE_SECONDS

    def end(self, job_id: str) -> None:
        """Its model answers."""
        with self._lock:
            self._pauses.pop(job_id, None)

    def _forget_old(self, now: float) -> None:
        """Jobs that were removed, or whose images all have an answer."""
        for job_id in [each for each, pause in self._pauses.items() if now - pause.until > PATIENCE_SECONDS]:
            del self._pauses[job_id]
