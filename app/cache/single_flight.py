"""Equal requests that are in flight at the same time in this process: computed once, by the one that came first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.cache.entries import Entry
from app.errors import DeadlineExceededError, EngineBusyError
from app.handover import Handover

# What takes longer has an image that is dear to decode, or an engine with much to do.
MOMENT_SECONDS = 1.0
# A request with less time left than that cannot compute it either.
LEAST_WAIT_SECONDS = 0.01


@dataclass(eq=False)
class Flight:
    """One answer on its way. ``entry`` stays None when the computation failed."""

    entry: Entry | None = None
    is_landed: bool = False
    # Nearly every flight has none: an event for each would cost more than all else here.
    followers: list[Handover] = field(default_factory=list)

    def has_landed(self, seconds: float) -> bool:
        """Whether it has, after waiting for at most so long."""
        told = Handover()
        # In the list before it looks: ``land`` says so first, and then goes through the list.
        self.followers.append(told)
        return self.is_landed or told.wait(time.monotonic() + seconds)

    def wait(self, deadline: float) -> bool:
        """Until it has landed, or half of this caller's time is over; whether it has.

        Raises DeadlineExceededError at this caller's own deadline.
        """
        left = deadline - time.monotonic()
        if self.has_landed(left / 2):
            return True
        if left < LEAST_WAIT_SECONDS:
            raise DeadlineExceededError(
                "The deadline passed while an equal request was in work.",
                hint="Allow more time with X-Request-Timeout.",
            )
        return False

    def land(self, entry: Entry | None) -> None:
        """Tell all who wait."""
        self.entry, self.is_landed = entry, True
        for told in self.followers:
            told.set()


class Flights:
    """Key → flight. Thread-safe."""

    def __init__(self, most_waiting: int = 1024) -> None:
        """``most_waiting``: so many may wait for longer than a moment; they keep the places of others."""
        self._flights: dict[str, Flight] = {}
        self._lock = threading.Lock()
        self._most_waiting = most_waiting
        self._waiting = 0
        # So many have ended: with none between two moments, nothing has become known that was not before.
        self.landed_total = 0

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

    def follow(self, flight: Flight, deadline: float) -> bool:
        """As ``Flight.wait``. Raises EngineBusyError where many wait already and it is not a matter of a moment."""
        is_brief = deadline - time.monotonic() <= 2 * MOMENT_SECONDS
        if is_brief:
            return flight.wait(deadline)
        if flight.has_landed(MOMENT_SECONDS):
            return True
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise EngineBusyError(
                    "Too many wait for the answer to an equal request.",
                    hint="Send it again after the time in Retry-After.",
                )
            self._waiting += 1
        try:
            return flight.wait(deadline)
        finally:
            with self._lock:
                self._waiting -= 1

    def land(self, key: str, flight: Flight, entry: Entry | None) -> None:
        """End a flight: with its answer, or None when it failed; then the next who wants it computes it anew."""
        with self._lock:
            self.landed_total += 1
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.land(entry)
