"""Counts of requests that all processes share. A leaf.

In one SQLite file below STATE_DIR, exact over processes: each count is one statement, and SQLite lets one at a time in.
Over machines, in the Redis that REDIS_URL names; while that is away, in the file.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from app.errors import StateUnusableError
from app.storage.circuit_breaker import PAUSE_SECONDS, CircuitBreaker
from app.storage.redis_connections import options
from app.storage.sqlite import Database

log = logging.getLogger("cask.web")

FILE_NAME = "limits.sqlite3"
MIGRATIONS = (
    """
    CREATE TABLE counts (key TEXT PRIMARY KEY, count INTEGER NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX counts_by_end ON counts (expires);
    """,
)
# A window begins with the first request in it; the count of one that has ended begins anew. So does that of one whose
# end is farther off than a window is long: it began before the time of day was set back.
COUNT = """
    INSERT INTO counts VALUES (:key, :amount, :now + :seconds) ON CONFLICT (key) DO UPDATE SET
        count = CASE WHEN expires > :now AND expires <= :now + :seconds THEN count + :amount ELSE :amount END,
        expires = CASE WHEN expires > :now AND expires <= :now + :seconds THEN expires ELSE :now + :seconds END
    RETURNING count, expires
"""
# A count takes microseconds, but a process may lose its core while it holds the lock. Others wait for it: counted
# elsewhere, more requests would pass than the limit. Another program that holds the file costs one request 0.3 s; then
# each process counts for itself until the file can be written again.
BUSY_SECONDS = 1.0
SWEEP_SECONDS = 30.0
REDIS_SECONDS = 0.1


class Storage(Protocol):
    """Where requests are counted."""

    def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        """Count so many; how many there are in this window of so many seconds, and when it ends by the time of day."""

    def check(self) -> bool:
        """Whether it can be used."""


class FileStorage:
    """Counts in STATE_DIR. ``now`` is the time of day, which all processes share. Raises StateUnusableError."""

    def __init__(self, state_dir: Path, now: Callable[[], float] = time.time) -> None:
        # After a loss of power some counts may be missing: nobody waits for a disk because of them.
        self._database = Database(state_dir / FILE_NAME, MIGRATIONS, busy_seconds=BUSY_SECONDS, is_expendable=True)
        self._now = now
        self._swept = 0.0

    def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        """As ``Storage``."""
        with self._database.transaction() as connection:
            # Read alone: one who read it before another and waited would take that one's window for a future one.
            now = self._now()
            given = {"key": key, "now": now, "seconds": seconds, "amount": amount}
            row = connection.execute(COUNT, given).fetchone()
            # By the time of day, which may be set back.
            if row["count"] == amount and not 0 <= now - self._swept <= SWEEP_SECONDS:
                self._swept = now
                connection.execute("DELETE FROM counts WHERE expires <= ?", (now,))
            return int(row["count"]), float(row["expires"])

    def check(self) -> bool:
        """Whether it can be used."""
        try:
            # Written, for a file that is full or locked can still be read. It is swept away as all that have ended.
            with self._database.transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO counts VALUES ('', 0, 0)")
        except StateUnusableError:
            return False
        return True


class MemoryStorage:
    """Counts of this process alone. The package has one that goes by the time of day, which can be set."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._swept = 0.0
        # How many, and when the window ends by the clock.
        self._counts: dict[str, tuple[int, float]] = {}

    def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        """As ``Storage``."""
        clock = self._clock()
        with self._lock:
            if clock - self._swept > SWEEP_SECONDS:
                self._swept = clock
                self._counts = {each: row for each, row in self._counts.items() if row[1] > clock}
            count, end = self._counts.get(key, (0, 0.0))
            count, end = self._counts[key] = (count + amount, end) if clock < end else (amount, clock + seconds)
        return count, self._now() + end - clock

    def check(self) -> bool:
        """It works always."""
        return True


class RedisStorage:
    """Counts that several machines share, by the package's own scripts. Raises the errors of ``redis``."""

    def __init__(self, url: str) -> None:
        # Imported here: it takes longer than all else at the start, and only few have one.
        from limits.storage import RedisStorage as Scripts

        self._scripts = Scripts(url, key_prefix="cask:limit", **options(url, REDIS_SECONDS))
        self.check = self._scripts.check

    def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        """As ``Storage``."""
        return self._scripts.incr(key, seconds, amount), self._scripts.get_expiry(key)


class FallbackStorage:
    """The first of several storages that works; the last one never fails. Nothing is raised.

    ``storages``: each with its name for the log.
    """

    def __init__(self, storages: list[tuple[str, Storage]], probe_seconds: float = PAUSE_SECONDS) -> None:
        self._guarded = [
            (CircuitBreaker(f"counting requests in {name}", storage.check, pause_seconds=probe_seconds), storage)
            for name, storage in storages[:-1]
        ]
        self._last = storages[-1][1]

    def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        """As the first that works says."""
        for breaker, storage in self._guarded:
            found = breaker.call(functools.partial(storage.count, key, seconds, amount))
            if found is not None:
                return found
        return self._last.count(key, seconds, amount)

    def check(self) -> bool:
        """Whether all of them are used."""
        return all(breaker.state == "closed" for breaker, _ in self._guarded)


def mend(state_dir: Path) -> None:
    """Begin with an empty file where a loss of power has damaged it. Before any process counts."""
    if not (state_dir / FILE_NAME).exists():
        return
    database = Database(state_dir / FILE_NAME, MIGRATIONS, is_expendable=True)
    try:
        with database.reading() as connection:
            is_whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    except StateUnusableError:
        is_whole = False
    database.close()
    if not is_whole:
        log.warning("%s was damaged; rate limits start from zero", FILE_NAME)
        database.start_anew()


def make(state_dir: Path, redis_url: str = "", probe_seconds: float = PAUSE_SECONDS) -> FallbackStorage:
    """The counts of this service: in Redis where there is one, in the file, at last in this process alone."""
    storages: list[tuple[str, Storage]] = [("the file", FileStorage(state_dir)), ("memory", MemoryStorage())]
    if redis_url:
        storages.insert(0, ("Redis", RedisStorage(redis_url)))
    return FallbackStorage(storages, probe_seconds)
