"""Equal requests that are in flight at the same time in this process: computed once, by the one that came first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.cache.entries import Entry
from app.errors import DeadlineExceededError

# Whoever has less time left than that cannot compute it either.
LEAST_WAIT_SECONDS = 0.01


@dataclass(eq=False)
class Flight:
    """One answer on its way. ``entry`` stays None where whoever computed it failed."""

    entry: Entry | None = None
    _landed: threading.Event = field(default_factory=threading.Event)

    def wait(self, deadline: float) -> bool:
        """Until it has landed, or half of this caller's time is over; whether it has.

        Raises DeadlineExceededError at this caller's own deadline.
        """
        left = deadline - time.monotonic()
        if self._landed.wait(max(0.0, left / 2)):
            return True
        if left < LEAST_WAIT_SECONDS:
            raise DeadlineExceededError(
                "The deadline passed while an equal request was in work.",
                hint="Allow more time with X-Request-Timeout.",
            )
        return False

    def land(self, entry: Entry | None) -> None:
        """Tell all who wait."""
        self.entry = entry
        self._landed.set()


class Flights:
    """Key → flight. Thread-safe."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._lock = threading.Lock()

    def join(self, keys: Iterable[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """Those that the caller must compute and land, and those that others compute."""
        led, followed = {}, {}
        with self._lock:
            for key in keys:
                flight = self._flights.get(key)
                if flight is None:
                    led[key] = self._flights[key] = Flight()
                elif key not in led:
                    followed[key] = flight
        return led, followed

    def overtake(self, key: str, flight: Flight) -> None:
        """One that takes so long is no longer waited for: the next who wants the answer computes it anew."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def land(self, key: str, flight: Flight, entry: Entry | None) -> None:
        """End a flight: with its answer, or None when it failed; then the next who wants it computes it anew."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.land(entry)
