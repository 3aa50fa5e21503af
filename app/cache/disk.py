"""Kept answers in one SQLite file that all web processes share: JSON, bounded in bytes and age, evicted oldest first.

A backend of Flask-Caching, as far as it is asked: for many keys at once. Its own for files writes pickles, one file an
entry.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from flask_caching.backends.base import BaseCache

from app.cache.known_keys import KnownKeys
from app.errors import StateUnusableError
from app.storage.sqlite import Database, used_bytes

FILE_NAME = "cache/answers.sqlite3"
KNOWN_NAME = "known-keys"
SCHEMA = """
CREATE TABLE answers (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, expires REAL NOT NULL, body TEXT NOT NULL);
"""
# A request that waits longer for a lock goes on without the cache.
BUSY_SECONDS = 0.1
# A connection for each of the few threads that are at it at once.
PAGES_KIB = 256
# Old rows that are looked at with each writing.
SWEPT_ROWS = 500
# When the file is full, so much of it goes at once: eviction is then rare, and cheap on average.
EVICTED_SHARE = 0.1
MAX_EVICTIONS = 20


class DiskStore(BaseCache):
    """The file. Values are texts."""

    def __init__(self, path: Path, max_bytes: int, default_timeout: int) -> None:
        super().__init__(default_timeout)
        self._max_bytes = max_bytes
        self._database = Database(path, (SCHEMA,), busy_seconds=BUSY_SECONDS, pages_kib=PAGES_KIB)
        self._known = KnownKeys(path.with_name(KNOWN_NAME))

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> DiskStore:
        """Called by Flask-Caching. ``kwargs``: ``path``, ``max_bytes``, ``default_timeout``."""
        return cls(kwargs["path"], kwargs["max_bytes"], kwargs["default_timeout"])

    def get_many(self, *keys: str) -> list[str | None]:
        """A text for each key, or None. Raises StateUnusableError."""
        now, found = time.time(), []
        with self._database.reading() as connection:
            for key in keys:
                row = connection.execute("SELECT expires, body FROM answers WHERE key = ?", (key,)).fetchone()
                found.append(row["body"] if row is not None and row["expires"] >= now else None)
        return found

    def may_hold(self, key: str) -> bool:
        """False where the key is not there for sure; asks no file."""
        return self._known.may_hold(key)

    def set_many(self, mapping: Mapping[str, str], timeout: Any = None) -> list[str]:
        """Keep texts, in one transaction, and make room for them. Raises StateUnusableError."""
        now = time.time()
        expires = now + (self.default_timeout if timeout is None else timeout)
        rows = [(key, expires, body) for key, body in mapping.items()]
        self._known.add(mapping)
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO answers (key, expires, body) VALUES (?, ?, ?)", rows)
            connection.execute(
                "DELETE FROM answers WHERE expires < :now"
                " AND number IN (SELECT number FROM answers ORDER BY number LIMIT :rows)",
                {"now": now, "rows": SWEPT_ROWS},
            )
            for _ in range(MAX_EVICTIONS):
                if used_bytes(connection) <= self._max_bytes:
                    break
                first, last = connection.execute("SELECT min(number), max(number) FROM answers").fetchone()
                if first is None:
                    break
                connection.execute("DELETE FROM answers WHERE number <= ?", (first + (last - first) * EVICTED_SHARE,))
        return list(mapping)

    def probe(self) -> None:
        """Whether it works; a damaged file is replaced, for nothing in it is missed. Raises StateUnusableError."""
        try:
            with self._database.transaction() as connection:
                # Written, for a full disk can still be read.
                connection.execute("INSERT OR REPLACE INTO answers (key, expires, body) VALUES ('', 0, '')")
                connection.execute("DELETE FROM answers WHERE key = ''")
        except StateUnusableError as error:
            # SQLite's word for a file that is damaged or none of its own; trouble around it has words of its own.
            if type(error.__cause__).__name__ != "DatabaseError":
                raise
            self._database.start_anew()
        with contextlib.suppress(OSError, ValueError):
            self._learn()

    def _learn(self) -> None:
        """Which keys there are. Raises OSError, ValueError, StateUnusableError; then the file is asked each time."""
        if not self._known.is_mapped:
            self._known.map()
        inode = self._database.path.stat().st_ino
        if not self._known.is_of(inode):
            with self._database.reading() as connection:
                self._known.fill(inode, (row[0] for row in connection.execute("SELECT key FROM answers")))
