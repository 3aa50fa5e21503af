"""One thread tells another, once, that what it waits for is there. A leaf.

``threading.Event`` does this for any number of threads, by a condition: a waiting thread must take the condition's
lock again while the other may still hold it, which wakes it twice. Under load two of these stand in a request's way.
"""

from __future__ import annotations

import threading
import time


class Handover:
    """Told by any thread, waited for by one."""

    __slots__ = ("_closed", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._closed = threading.Lock()
        self._closed.acquire()

    def set(self) -> None:
        """Let it go on. To be called once."""
        self.is_set = True
        self._closed.release()

    def wait(self, deadline: float) -> bool:
        """Until it is told, at most until this moment of ``time.monotonic``; whether it was."""
        left = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
        return self.is_set or self._closed.acquire(timeout=left) or self.is_set
