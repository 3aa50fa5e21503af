"""Counts of requests that all processes share: storages for ``limits``, whose strategies ask them. A leaf.

In one SQLite file below STATE_DIR, exact over processes: each count is one statement, and SQLite lets one at a time in.
Over machines, in the Redis that REDIS_URL names; while that is away, in the file.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from limits.storage import Storage

from app.errors import StateUnusableError
from app.storage.circuit_breaker import PAUSE_SECONDS, CircuitBreaker
from app.storage.redis_connections import options
from app.storage.sqlite import Database

T = TypeVar("T")

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
# Counts wait for each other for microseconds. Whoever else holds the file costs one request so long; then each process
# counts for itself until the file can be written again.
BUSY_SECONDS = 0.1
# SQLite's waiting is not fair: on a busy machine one may wait much longer, while others count. That is no fault.
MAX_CONTENDED_SECONDS = 1.0
SWEEP_SECONDS = 30.0
REDIS_SECONDS = 0.1


class FileStorage(Storage):
    """Counts in STATE_DIR. ``now`` is the time of day, which all processes share. Raises StateUnusableError."""

    STORAGE_SCHEME = ["cask-file"]  # noqa: RUF012 - as the base class has it

    def __init__(self, state_dir: Path, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        # After a loss of power some counts may be missing: nobody waits for a disk because of them.
        self._database = Database(state_dir / FILE_NAME, MIGRATIONS, busy_seconds=BUSY_SECONDS, is_expendable=True)
        self._now = now
        self._swept = 0.0
        self._last = threading.local()

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may be raised."""
        return StateUnusableError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, and say how many there are in this window of ``expiry`` seconds."""
        now = self._now()
        with self._database.reading() as connection:
            values = {"key": key, "amount": amount, "now": now, "seconds": expiry}
            row = _count(connection, values)
            self._last.row = (key, row["expires"])
            if row["count"] == amount and now - self._swept > SWEEP_SECONDS:
                self._swept = now
                connection.execute("DELETE FROM counts WHERE expires <= ?", (now,))
            return int(row["count"])

    def get(self, key: str) -> int:
        """How many there are in this window."""
        row = self._row(key)
        return int(row["count"]) if row else 0

    def get_expiry(self, key: str) -> float:
        """When the window ends; now, where there is none."""
        known, expires = getattr(self._last, "row", ("", 0.0))
        if known == key:  # asked right after the count
            return float(expires)
        row = self._row(key)
        return float(row["expires"]) if row else self._now()

    def check(self) -> bool:
        """Whether it can be used."""
        try:
            # Written, for a file that is full or locked can still be read. It is swept away as all that have ended.
            with self._database.transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO counts VALUES ('', 0, 0)")
        except StateUnusableError:
            return False
        return True

    def reset(self) -> int:
        """Forget all counts; how many there were."""
        with self._database.transaction() as connection:
            return int(connection.execute("DELETE FROM counts").rowcount)

    def clear(self, key: str) -> None:
        """Forget one count."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM counts WHERE key = ?", (key,))

    def _row(self, key: str) -> Any:
        with self._database.reading() as connection:
            query = "SELECT count, expires FROM counts WHERE key = ? AND expires > ?"
            return connection.execute(query, (key, self._now())).fetchone()


def _count(connection: sqlite3.Connection, values: dict[str, Any]) -> Any:
    """Count in the file, and wait for as long as others do get their turn."""
    give_up = time.monotonic() + MAX_CONTENDED_SECONDS
    while True:
        version = _version(connection)
        try:
            return connection.execute(COUNT, values).fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() > give_up or _version(connection) == version:
                raise


def _version(connection: sqlite3.Connection) -> int:
    """Another number whenever somebody else has written."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


class MemoryStorage(Storage):
    """Counts of this process alone. The package has one that goes by the time of day, which can be set."""

    STORAGE_SCHEME = ["cask-memory"]  # noqa: RUF012 - as the base class has it

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._swept = 0.0
        # How many, and when the window ends by the clock.
        self._counts: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """Nothing."""
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, and say how many there are in this window of ``expiry`` seconds."""
        clock = self._clock()
        with self._lock:
            if clock - self._swept > SWEEP_SECONDS:
                self._swept = clock
                self._counts = {each: row for each, row in self._counts.items() if row[1] > clock}
            count, end = self._counts.get(key, (0, 0.0))
            self._counts[key] = (count + amount, end) if clock < end else (amount, clock + expiry)
            return self._counts[key][0]

    def get(self, key: str) -> int:
        """How many there are in this window."""
        count, end = self._counts.get(key, (0, 0.0))
        return count if self._clock() < end else 0

    def get_expiry(self, key: str) -> float:
        """When the window ends, by the time of day; now, where there is none."""
        return self._now() + max(0.0, self._counts.get(key, (0, 0.0))[1] - self._clock())

    def check(self) -> bool:
        """It works always."""
        return True

    def reset(self) -> int:
        """Forget all counts; how many there were."""
        counts, self._counts = self._counts, {}
        return len(counts)

    def clear(self, key: str) -> None:
        """Forget one count."""
        self._counts.pop(key, None)


class FallbackStorage(Storage):
    """The first of several storages that works; the last one never fails. Nothing is raised.

    ``storages``: each with its name for the log.
    """

    STORAGE_SCHEME = ["cask-falling"]  # noqa: RUF012 - as the base class has it

    def __init__(self, storages: list[tuple[str, Storage]], probe_seconds: float = PAUSE_SECONDS) -> None:
        super().__init__()
        self._guarded = [
            (CircuitBreaker(f"counting requests in {name}", storage.check, pause_seconds=probe_seconds), storage)
            for name, storage in storages[:-1]
        ]
        self._last = storages[-1][1]

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """Nothing."""
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """As the first that works says."""
        return self._ask(lambda storage: storage.incr(key, expiry, amount))

    def get(self, key: str) -> int:
        """As the first that works says."""
        return self._ask(lambda storage: storage.get(key))

    def get_expiry(self, key: str) -> float:
        """As the first that works says."""
        return self._ask(lambda storage: storage.get_expiry(key))

    def check(self) -> bool:
        """Whether all of them are used."""
        return all(breaker.state == "closed" for breaker, _ in self._guarded)

    def reset(self) -> int | None:
        """Forget all counts of the first that works."""
        return self._ask(lambda storage: storage.reset())

    def clear(self, key: str) -> None:
        """Forget one count, in all that work."""
        self._ask(lambda storage: storage.clear(key))

    def _ask(self, question: Callable[[Storage], T]) -> T:
        for breaker, storage in self._guarded:
            found = breaker.call(functools.partial(question, storage))
            if found is not None:
                return found
        return question(self._last)


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
        storages.insert(0, ("Redis", _redis(redis_url)))
    return FallbackStorage(storages, probe_seconds)


def _redis(url: str) -> Storage:
    """Imported here: it takes longer than all else at the start, and only few have one."""
    from limits.storage import RedisStorage

    return RedisStorage(url, key_prefix="cask:limit", **options(url, REDIS_SECONDS))
