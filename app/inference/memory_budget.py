"""The memory that requests may hold at once: bodies, decoded pixels, what waits for the engine. A leaf.

All processes of the service share one budget through the ``ledger``. An ordinary request only writes a number there;
what is large is taken under a lock, so that two never take the same room.
"""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from app.errors import MemoryShortError
from app.inference.memory_ledger import FILE, Ledger

Purpose = Literal["body", "pixels"]
MEGABYTE = 1024**2
# How much of the budget bodies may take, and pixels. What is large leaves the rest to what is small, so that a few
# large requests never keep many small ones waiting. Bodies leave most of it to pixels: whose body is there can end.
SHARES: dict[Purpose, tuple[float, float]] = {"body": (0.3, 0.4), "pixels": (0.85, 1.0)}
SMALL_SHARE = 1 / 64
# Other processes give back without telling, and end without giving back.
LOOK_SECONDS = 0.02
DEAD_SECONDS = 0.5


class Budget:
    """One for each process. Thread-safe."""

    def __init__(self, total_bytes: int, ledger: Ledger) -> None:
        """``total_bytes``: of all processes together."""
        self.total_bytes = total_bytes
        self._ledger = ledger
        self._used: dict[Purpose, int] = {"body": 0, "pixels": 0}
        self._small_bytes = int(total_bytes * SMALL_SHARE)
        self._most = {
            name: (int(total_bytes * large), int(total_bytes * small)) for name, (large, small) in SHARES.items()
        }
        # Taken by itself: the condition's own block is entered and left in Python.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0

    @classmethod
    def of(cls, total_bytes: int, state_dir: Path) -> Budget:
        """The budget that all processes with this STATE_DIR share."""
        return cls(total_bytes, Ledger(state_dir / FILE))

    @property
    def used_bytes(self) -> int:
        """What this process holds at the moment."""
        return sum(self._used.values())

    def hold(self, purpose: Purpose) -> Hold:
        """Something that holds nothing yet."""
        return Hold(self, purpose)

    def most(self, purpose: Purpose, count: int) -> int:
        """How much all may hold for this purpose, for one that wants so many bytes."""
        large, small = self._most[purpose]
        return small if count <= self._small_bytes else large

    def take(self, purpose: Purpose, count: int, until: float) -> bool:
        """Take so many bytes; waits for them until this moment of ``time.monotonic``. Whether they were there."""
        with self._lock:
            return self._try(purpose, count) or self._wait(purpose, count, until)

    def give_back(self, purpose: Purpose, count: int) -> None:
        """The opposite of ``take``."""
        with self._lock:
            self._add(purpose, -count)
            if self._waiting:
                self._changed.notify_all()

    def _wait(self, purpose: Purpose, count: int, until: float) -> bool:
        dead_at = -math.inf
        while not self._try(purpose, count):
            now = time.monotonic()
            if now >= dead_at + DEAD_SECONDS:
                dead_at = now
                with self._ledger.locked():
                    self._ledger.forget_dead()
                continue
            if now >= until:
                return False
            self._waiting += 1
            self._changed.wait(min(LOOK_SECONDS, until - now))
            self._waiting -= 1
        return True

    def _try(self, purpose: Purpose, count: int) -> bool:
        large, small = self._most[purpose]
        if count <= self._small_bytes:
            return self._take_now(purpose, count, small)
        with self._ledger.locked():
            return self._take_now(purpose, count, large)

    def _take_now(self, purpose: Purpose, count: int, most: int) -> bool:
        bodies, pixels = self._ledger.held()
        if purpose == "body":
            if bodies + count > most:
                return False
            most = self.total_bytes
        if bodies + pixels + count > most:
            return False
        self._add(purpose, count)
        return True

    def _add(self, purpose: Purpose, count: int) -> None:
        self._used[purpose] += count
        self._ledger.write(self._used["body"], self._used["pixels"])


class Hold:
    """What one request, or one step of it, holds. Used by one thread at a time; given back at the end of a ``with``."""

    __slots__ = ("_budget", "_purpose", "bytes")

    def __init__(self, budget: Budget, purpose: Purpose) -> None:
        self._budget = budget
        self._purpose: Purpose = purpose
        self.bytes = 0

    def grow(self, count: int, until: float, what: str) -> None:
        """Hold so many bytes more; waits for them until this moment of ``time.monotonic``.

        ``what`` needs them, for the message. Raises MemoryShortError.
        """
        if not self._budget.take(self._purpose, count, until):
            raise MemoryShortError(
                "%(what)s needs %(count).0f MB of memory, which are not free at the moment.",
                hint="Send it again after the time in Retry-After, or send less at once.",
                what=what,
                count=count / MEGABYTE,
            )
        self.bytes += count

    def settle(self, count: int, until: float, what: str) -> None:
        """Hold so many bytes in all, from here on. Waits and raises as ``grow`` where these are more than until now."""
        if count > self.bytes:
            self.grow(count - self.bytes, until, what)
        else:
            left, self.bytes = self.bytes - count, count
            self._budget.give_back(self._purpose, left)

    def close(self) -> None:
        """Give all of it back; may be called again."""
        count, self.bytes = self.bytes, 0
        if count:
            self._budget.give_back(self._purpose, count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
