"""How many predictions this process takes at once, for Apache, which refuses requests that would wait too long.

A refusal by Python costs Apache's way to it and back, and a wait for a thread and for Python's lock. Apache counts what
it has handed over and what has not been answered yet (apache/modules/mod_arrivals.c); the controller says how many that
may be, at most some milliseconds late. The numbers are a file that all web processes and Apache have in memory, a row
each. What a process wrote that has ended holds until its successor has the row.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from app.storage import file_locks

FILE = Path("run", "places")
# Two numbers: for anybody, and for addresses that have fewer places than others.
ROW_BYTES = 8


class Places:
    """The row of one process. Not thread-safe: the controller's lock is held."""

    def __init__(self, row: memoryview, lock: int | None = None) -> None:
        """``row``: two numbers of 32 bits. ``lock``: a descriptor that keeps the row ours while it is open."""
        self._row = row.cast("I")
        self._lock = lock

    def show(self, everyone: int, modest: int) -> None:
        """So many requests may be with us, or on their way."""
        if self._row[0] != everyone:
            self._row[0] = everyone
        if self._row[1] != modest:
            self._row[1] = modest


def make(path: Path, processes: int) -> None:
    """Rows without a number, for so many processes. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        # All of it on the disk: to touch a hole while the disk is full would end the process, Apache's too (SIGBUS).
        os.posix_fallocate(file.fileno(), 0, processes * ROW_BYTES)


def claim(path: Path) -> Places | None:
    """A row that no other process has; None: there is none. Raises OSError, ValueError."""
    with path.open("r+b") as file:
        rows = memoryview(mmap.mmap(file.fileno(), 0))
    for number in range(len(rows) // ROW_BYTES):
        lock = file_locks.take(path.with_name(f"{path.name}.{number}.lock"), 0o644)
        if lock is not None:
            return Places(rows[number * ROW_BYTES :][:ROW_BYTES], lock)
    return None
