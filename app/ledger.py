"""What each process holds of the memory that all may hold together: a small file, a row a process. A leaf.

A row belongs to a process by its number and birth; what a process that has ended held counts no more. Taking and giving
back go in large steps, see ``budget``, so a lock on the file is enough.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from app import file_locks, machine

FILE = "run/memory"
# Process, its birth, bytes of everything, bytes of bodies.
ROW = struct.Struct("<4q")
MAX_ROWS = 512
LOCK_TRIES, LOCK_PAUSE_SECONDS = 50, 0.001


class Ledger:
    """This process's row, and the sum of all. Thread-safe. The file is opened with the first claim."""

    def __init__(self, path: Path | None) -> None:
        """``path``: None counts in this process alone, as does a file that cannot be used."""
        self._path = path
        self._file: int | None = None
        self._place = -1
        self._pid = 0
        self._held, self._bodies = 0, 0
        self._lock = threading.Lock()

    def claim(self, count: int, bodies: int, most: int, most_bodies: int) -> bool:
        """Take so many bytes more, ``bodies`` of them for bodies, where all together then hold at most so much."""
        with self._lock, self._locked() as rows:
            total, of_bodies = sum(row[2] for row in rows), sum(row[3] for row in rows)
            if total + count > most or (bodies and of_bodies + bodies > most_bodies):
                return False
            self._write(count, bodies)
            return True

    def give_back(self, count: int, bodies: int) -> None:
        """Hold so many bytes less."""
        with self._lock, self._locked():
            self._write(-count, -bodies)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[tuple[int, int, int, int]]]:
        """The rows of all processes that live, for as long as nobody else may change them."""
        file = self._open()
        if file is None:
            yield [(0, 0, self._held, self._bodies)]
            return
        _lock(file)
        try:
            rows = list(ROW.iter_unpack(_whole_rows(os.pread(file, ROW.size * MAX_ROWS, 0))))
            if self._place < 0:
                dead = (number for number, row in enumerate(rows) if not _lives(row))
                self._place = next(dead, len(rows))
            yield [row for number, row in enumerate(rows) if number != self._place and _lives(row)] + [
                (0, 0, self._held, self._bodies)
            ]
        finally:
            file_locks.let_go(file)

    def _open(self) -> int | None:
        if self._pid != os.getpid():
            # Also after a fork: a child has held nothing yet.
            self._pid, self._place, self._held, self._bodies = os.getpid(), -1, 0, 0
            self._file = None
            if self._path is not None:
                with contextlib.suppress(OSError):
                    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    weakref.finalize(self, os.close, self._file)
        return self._file

    def _write(self, count: int, bodies: int) -> None:
        self._held += count
        self._bodies += bodies
        if self._file is not None and self._place < MAX_ROWS:
            row = ROW.pack(self._pid, machine.born(self._pid) or 0, self._held, self._bodies)
            # A full disk: then this process counts alone, until there is room.
            with contextlib.suppress(OSError):
                os.pwrite(self._file, row, self._place * ROW.size)


def _lock(file: int) -> None:
    """Soon, or not at all: a process that stands still must not stop the others.

    Without the lock two may take the same room once.
    """
    for _ in range(LOCK_TRIES):
        if file_locks.hold(file):
            return
        time.sleep(LOCK_PAUSE_SECONDS)


def _whole_rows(data: bytes) -> bytes:
    return data[: len(data) // ROW.size * ROW.size]


def _lives(row: tuple[int, ...]) -> bool:
    return bool(row[2]) and machine.born(row[0]) == row[1]
