"""So many at once. As threading's semaphore, which is written in Python and costs a tenth of a request here."""

from __future__ import annotations

import queue


class Permits:
    """Thread-safe."""

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def acquire(self, timeout: float) -> bool:
        """Wait for a permit, at most so many seconds; whether there was one."""
        try:
            self._free.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        """The opposite of ``acquire``."""
        self._free.put(None)
