"""Whether another service has answered of late: one that is away is asked again now and then, and by one alone."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# So many in a row that could not be asked, or did not answer in time.
FAILURES = 3
PAUSE_SECONDS = 5.0
# A caller who gives less time than this says nothing of the service by being left without an answer.
FAIR_SECONDS = 1.0


class Health:
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._ask_again = -math.inf
        self._lock = threading.Lock()

    def rest_seconds(self) -> float:
        """For how long it is not to be asked; 0: ask it now, and say how it went."""
        with self._lock:
            now = self._clock()
            left = self._ask_again - now
            if self._failures < FAILURES:
                return 0.0
            if left <= 0:
                # This one tries; the others wait for what it finds.
                self._ask_again = now + PAUSE_SECONDS
            return max(0.0, left)

    def note_answer(self) -> None:
        """It answered, whatever it said."""
        with self._lock:
            self._failures = 0

    def note_failure(self, given_seconds: float) -> None:
        """It could not be reached, or let so many seconds pass."""
        with self._lock:
            if given_seconds >= FAIR_SECONDS:
                self._failures += 1
                self._ask_again = self._clock() + PAUSE_SECONDS
