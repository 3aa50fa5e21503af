"""So many at once, and so many that wait for that: what takes long has a lane of its own, and keeps to it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator

from app.errors import DeadlineExceededError, DecodersBusyError


class Lane:
    """Places for images. Thread-safe. A queue, as threading's semaphore is in Python: a tenth of a request here."""

    def __init__(self, places: int, most_waiting: int) -> None:
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(places):
            self._free.put(None)
        self._most_waiting = most_waiting
        self.waiting = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def place(self, deadline: float) -> Iterator[None]:
        """A place for as long as the block lasts. ``deadline``: a moment of ``time.monotonic``.

        Raises DeadlineExceededError, DecodersBusyError when too many wait already.
        """
        try:
            self._free.get_nowait()
        except queue.Empty:
            self._wait(deadline)
        try:
            yield
        finally:
            self._free.put(None)

    def _wait(self, deadline: float) -> None:
        with self._lock:
            if self.waiting >= self._most_waiting:
                raise DecodersBusyError(
                    "Too many large images wait to be decoded.",
                    hint="Send it again after the time in Retry-After, or send a smaller one.",
                )
            self.waiting += 1
        try:
            self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise late() from None
        finally:
            with self._lock:
                self.waiting -= 1


def late() -> DeadlineExceededError:
    """The error at the deadline."""
    return DeadlineExceededError(
        "The deadline passed before the image was decoded.",
        hint="Allow more time with X-Request-Timeout, or send fewer or smaller images at once.",
    )
