"""SQLite files below STATE_DIR that several processes write: one way to open, upgrade and lock them. A leaf."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import StateUnusableError

BUSY_SECONDS = 5.0
OPENING_PERIOD_SECONDS = 0.002
# What SQLite takes by itself.
PAGES_KIB = 2000
OWNER_ONLY = 0o077


class Database:
    """One file. A connection for each thread of each process, opened when first used; safe after a fork.

    ``migrations``: scripts of SQL, the first makes the file; a file remembers in ``user_version`` how many it has had.
    ``is_durable``: whether a commit must survive the loss of power (FULL) or only that of the process (NORMAL).
    ``is_expendable``: what it holds may be lost with the power, the whole file even: no commit waits for the disk.
    ``pages_kib``: memory that each thread's connection may keep pages in.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        is_durable: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        is_expendable: bool = False,
        pages_kib: int = PAGES_KIB,
    ) -> None:
        self.path = path
        self._migrations = migrations
        self._synchronous = "OFF" if is_expendable else "FULL" if is_durable else "NORMAL"
        self._busy_seconds = busy_seconds
        self._pages_kib = pages_kib
        self._generation = 0
        self._local = threading.local()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and alone: others who write wait. Raises StateUnusableError."""
        with self._failures():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Some failures, a full disk among them, have rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For SELECT: waits for nobody. Raises StateUnusableError."""
        with self._failures():
            yield self._connection()

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        held = getattr(self._local, "held", None)
        if held is not None and held[0][0] == os.getpid():
            held[1].close()
        self._local.held = None

    def start_anew(self) -> None:
        """Remove the file, damaged or not; every thread of this process opens a new one. For what may be lost."""
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._generation += 1

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StateUnusableError(
                f"The file {self.path.name} of the state folder cannot be used: {error}.",
                hint=f"See whether {self.path} may be written by the service's user and whether the disk is full.",
            ) from error

    def _connection(self) -> sqlite3.Connection:
        held: tuple[tuple[int, int], sqlite3.Connection] | None = getattr(self._local, "held", None)
        # A connection must not be used by the child of a fork.
        mark = (os.getpid(), self._generation)
        if held is None or held[0] != mark:
            held = (mark, self._open())
            self._local.held = held
        return held[1]

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One at a time: of several that make a new file, or change its journal, SQLite fails some at once.
        with _alone(self.path.parent, self._busy_seconds):
            return self._open_alone()

    def _open_alone(self) -> sqlite3.Connection:
        if not self.path.exists():
            # Made before SQLite makes it, which would let others read.
            descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666 & ~OWNER_ONLY)
            if os.geteuid() == 0:
                # An operator as root must not shut out the service, whose folder it is; SQLite sees to its own files.
                folder = self.path.parent.stat()
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            os.close(descriptor)
        connection = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{self._pages_kib}")
        self._migrate(connection)
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == len(self._migrations):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked again: another process may have been first.
            version = _version(connection)
            if version > len(self._migrations):
                raise sqlite3.DatabaseError(
                    f"its form {version} is newer than this program's {len(self._migrations)}; run the newer program"
                )
            for script in self._migrations[version:]:
                for statement in _statements(script):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={len(self._migrations)}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


@contextlib.contextmanager
def _alone(folder: Path, seconds: float) -> Iterator[None]:
    """Hold the folder against all others who ask for this, other threads too. Raises sqlite3.OperationalError.

    The folder, and no file of the database: to close such a file would let go of all locks that this process has on it
    (fcntl(2)).
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + seconds
        while not _locked(descriptor):
            if time.monotonic() > until:
                raise sqlite3.OperationalError(f"somebody else has been opening it for {seconds:g} s")
            time.sleep(OPENING_PERIOD_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; ``executescript`` would commit in between."""
    pending = ""
    for part in script.split(";"):
        pending += part + ";"
        if part.strip() and sqlite3.complete_statement(pending):
            yield pending
            pending = ""
