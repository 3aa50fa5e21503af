"""The memory that requests may hold at once: bodies, decoded pixels, what waits for the engine. A leaf.

All processes of the service share one budget through the ``ledger``; each takes from it in large steps, so that an
ordinary request only adds to a number.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from app.errors import MemoryShortError
from app.ledger import FILE, Ledger

Purpose = Literal["body", "pixels"]
MEGABYTE = 1024**2
STEP_BYTES = 16 * MEGABYTE
# How much of the budget bodies may take, and pixels. What is large leaves the rest to what is small, so that a few
# large requests never keep many small ones waiting. Bodies leave most of it to pixels: whose body is there can end.
SHARES: dict[Purpose, tuple[float, float]] = {"body": (0.3, 0.4), "pixels": (0.85, 1.0)}
SMALL_SHARE = 1 / 64
# Other processes give back without telling.
LOOK_SECONDS = 0.02


class Budget:
    """One for each process. Thread-safe."""

    def __init__(self, total_bytes: int, ledger: Ledger) -> None:
        """``total_bytes``: of all processes together."""
        self.total_bytes = total_bytes
        self._ledger = ledger
        self._step = max(1, min(STEP_BYTES, total_bytes // 128))
        self._used: dict[Purpose, int] = {"body": 0, "pixels": 0}
        self._claimed: dict[Purpose, int] = {"body": 0, "pixels": 0}
        self._changed = threading.Condition()

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
        large, small = SHARES[purpose]
        return int(self.total_bytes * (small if count <= self.total_bytes * SMALL_SHARE else large))

    def take(self, purpose: Purpose, count: int, until: float) -> bool:
        """Take so many bytes; waits for them until this moment of ``time.monotonic``. Whether they were there."""
        with self._changed:
            while not self._try(purpose, count):
                remaining_seconds = until - time.monotonic()
                if remaining_seconds <= 0:
                    return False
                self._changed.wait(min(LOOK_SECONDS, remaining_seconds))
            return True

    def give_back(self, purpose: Purpose, count: int) -> None:
        """The opposite of ``take``."""
        with self._changed:
            self._used[purpose] -= count
            spare = self._claimed[purpose] - self._used[purpose] - self._step
            if spare > self._step:
                self._claimed[purpose] -= spare
                self._ledger.give_back(spare, spare if purpose == "body" else 0)
                self._changed.notify_all()

    def _try(self, purpose: Purpose, count: int) -> bool:
        missing = self._used[purpose] + count - self._claimed[purpose]
        if missing > 0 and not (
            self._claim(purpose, -(-missing // self._step) * self._step, count) or self._claim(purpose, missing, count)
        ):
            return False
        self._used[purpose] += count
        return True

    def _claim(self, purpose: Purpose, more: int, count: int) -> bool:
        is_body = purpose == "body"
        most = self.total_bytes if is_body else self.most(purpose, count)
        if not self._ledger.claim(more, more if is_body else 0, most, self.most("body", count)):
            return False
        self._claimed[purpose] += more
        return True


class Hold:
    """What one request, or one step of it, holds. Used by one thread at a time; given back at the end of a ``with``."""

    __slots__ = ("_budget", "_bytes", "_purpose")

    def __init__(self, budget: Budget, purpose: Purpose) -> None:
        self._budget = budget
        self._purpose: Purpose = purpose
        self._bytes = 0

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
        self._bytes += count

    def close(self) -> None:
        """Give all of it back; may be called again."""
        count, self._bytes = self._bytes, 0
        if count:
            self._budget.give_back(self._purpose, count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
