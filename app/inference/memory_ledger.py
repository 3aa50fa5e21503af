"""What each process holds of the memory that all may hold together: a small file that all have mapped. A leaf.

A row belongs to a process by its number and birth; what a process that has ended held counts no more. Each writes its
own row, at once and without a lock, so that nothing counts as held that is not. Who takes much holds the lock.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from app.host import machine
from app.storage import file_locks

FILE = "run/memory"
# Numbers of 8 bytes. The first row says how many follow; each other: process, its birth, bytes of bodies, of pixels.
ROW_NUMBERS = 4
PID, BORN, BODIES, PIXELS = range(ROW_NUMBERS)
MAX_ROWS = 512
FILE_BYTES = 8 * ROW_NUMBERS * (1 + MAX_ROWS)
LOCK_TRIES, LOCK_PAUSE_SECONDS = 50, 0.001


class Ledger:
    """This process's row, and the sum of all. Its owner holds a lock around each call. Opened with the first call."""

    def __init__(self, path: Path | None) -> None:
        """``path``: None counts in this process alone, as does a file that cannot be used."""
        self._path = path
        self._lock: int | None = None
        self._numbers = memoryview(bytearray(8 * ROW_NUMBERS * 2)).cast("q")
        self._place = ROW_NUMBERS
        self._pid = 0

    def held(self) -> tuple[int, int]:
        """Bytes of bodies and of pixels that all processes hold."""
        numbers = self._numbers[ROW_NUMBERS : self._end()].tolist()
        return sum(numbers[BODIES::ROW_NUMBERS]), sum(numbers[PIXELS::ROW_NUMBERS])

    def write(self, bodies: int, pixels: int) -> None:
        """This process holds so many bytes now."""
        if not self._pid:
            self._open()
        numbers, place = self._numbers, self._place
        numbers[place + BODIES] = bodies
        numbers[place + PIXELS] = pixels

    def forget_dead(self) -> None:
        """What processes held that have ended since is free. Reads a file for each row; to be called when locked."""
        for place in range(ROW_NUMBERS, self._end(), ROW_NUMBERS):
            if self._numbers[place + PID] and not self._lives(place):
                self._numbers[place : place + ROW_NUMBERS] = EMPTY

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else takes much within the block."""
        if not self._pid:
            self._open()
        if self._lock is None:
            yield
            return
        _lock(self._lock)
        try:
            yield
        finally:
            file_locks.let_go(self._lock)

    def _end(self) -> int:
        """Behind the last row."""
        if not self._pid:
            self._open()
        count = self._numbers[0]
        return ROW_NUMBERS * (1 + count) if 0 <= count <= MAX_ROWS else len(self._numbers)

    def _open(self) -> None:
        self._pid, self._lock = os.getpid(), None
        with contextlib.suppress(OSError, ValueError):
            self._map()
        if self._lock is None:
            self._numbers, self._place = memoryview(bytearray(8 * ROW_NUMBERS * 2)).cast("q"), ROW_NUMBERS
            self._numbers[0] = 1

    def _map(self) -> None:
        if self._path is None:
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A full disk would end the process with the first number that finds no room on it (SIGBUS).
            os.posix_fallocate(file, 0, FILE_BYTES)
            self._numbers = memoryview(mmap.mmap(file, FILE_BYTES)).cast("q")
            _lock(file)
            self._claim()
        except BaseException:
            os.close(file)
            raise
        file_locks.let_go(file)
        self._lock = file
        # A process that makes many apps, as tests do, keeps the files of none that is gone.
        weakref.finalize(self, os.close, file).atexit = False

    def _claim(self) -> None:
        """A row that is nobody's."""
        self.forget_dead()
        places = range(ROW_NUMBERS, len(self._numbers), ROW_NUMBERS)
        free = next((place for place in places if not self._numbers[place + PID]), None)
        if free is None:
            raise ValueError(f"{MAX_ROWS} processes hold a row of {self._path}")
        self._place = free
        self._numbers[free + BORN], self._numbers[free + PID] = machine.born(self._pid) or 0, self._pid
        ends = (place // ROW_NUMBERS for place in places if self._numbers[place + PID])
        self._numbers[0] = max(ends)

    def _lives(self, place: int) -> bool:
        pid, born = self._numbers[place + PID], self._numbers[place + BORN]
        return machine.born(pid) == born


EMPTY = memoryview(bytearray(8 * ROW_NUMBERS)).cast("q")


def _lock(file: int) -> None:
    """Soon, or not at all: a process that stands still must not stop the others.

    Without the lock two may take the same room once.
    """
    for _ in range(LOCK_TRIES):
        if file_locks.hold(file):
            return
        time.sleep(LOCK_PAUSE_SECONDS)
