"""SQLite files below STATE_DIR that several processes write: one way to open, upgrade and lock them. A leaf."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import StateUnusableError
from app.storage import file_locks

# For our own processes, which are at work: a commit may take long on a slow disk.
BUSY_SECONDS = 5.0
# For anybody else, such as a backup or a person with the program sqlite3: nobody knows how long they hold a file.
LOCKED_SECONDS = 0.15
# So often in a row it must be somebody else: between two of ours there is a moment in which nobody is at work.
LOCKED_TIMES = 2
# While another program reads for hours, the journal grows; afterwards it keeps so much of it.
MOST_JOURNAL_BYTES = 16 * 1024**2
OPENING_PERIOD_SECONDS = 0.002
# Only ours open under this lock, each for milliseconds: a new file, or a slow disk, may hold several up.
OPENING_SECONDS = 5.0
# What SQLite takes by itself.
PAGES_KIB = 2000
OWNER_ONLY = 0o077
# Two commits between two ticks of a disk's clock, a second or two on some, leave the same time behind.
SETTLED_SECONDS = 2.0
# More are open only while more threads use them at once.
MAX_IDLE_CONNECTIONS = 4


class _Connection(sqlite3.Connection):
    """With a lock of its own that says to our other processes: this transaction is one of ours."""

    def own(self, ours: int) -> None:
        """``ours``: the descriptor of that lock, which is closed with the connection, also where nobody closes it."""
        self.ours = ours
        self._end = weakref.finalize(self, os.close, ours)
        self._end.atexit = False

    def is_ours(self) -> bool:
        """Whether a transaction of another connection of ours is open."""
        if not file_locks.hold(self.ours):
            return True
        file_locks.let_go(self.ours)
        return False

    def close(self) -> None:
        """Close both."""
        super().close()
        self._end()


# The journal as the kernel knows it: each commit of any program writes to it.
Mark = tuple[int, int, int]
# The generation of its file, and the connection.
_Idle = tuple[int, _Connection]


class Database:
    """One file, for all threads of a process; safe after a fork.

    Connections are opened when needed and lent to one thread at a time: dozens of threads that ask now and then share
    a few, where each of its own would cost 0.1 to 2 MB, three descriptors, and a wait when many first ask together.

    ``migrations``: scripts of SQL, the first makes the file; a file remembers in ``user_version`` how many it has had.
    ``is_durable``: whether a commit must survive the loss of power (FULL) or only that of the process (NORMAL).
    ``is_expendable``: what it holds may be lost with the power, the whole file even: no commit waits for the disk.
    ``busy_seconds``: how long to wait for our own processes; for others at most twice ``LOCKED_SECONDS``.
    ``pages_kib``: memory that each connection may keep pages in.
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
        self._waiting_seconds = min(busy_seconds, LOCKED_SECONDS)
        self._settled: Mark | None = None
        self._journal = path.with_name(f"{path.name}-wal")
        self._pages_kib = pages_kib
        self._generation = 0
        # By process: a connection must neither be used nor closed by the child of a fork.
        self._idle: dict[int, list[_Idle]] = {}
        self._held = threading.local()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and alone: others who write wait. Raises StateUnusableError."""
        with self._failures(), self._connection() as connection:
            self._begin(connection)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Some failures, a full disk among them, have rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                file_locks.let_go(connection.ours)

    def _begin(self, connection: _Connection) -> None:
        """Take the file's lock. Raises sqlite3.OperationalError when others hold it for too long."""
        until, others = time.monotonic() + self._busy_seconds, 0
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                others = 0 if connection.is_ours() else others + 1
                if not is_locked(error) or others == LOCKED_TIMES or time.monotonic() > until:
                    raise
            else:
                # A process that looks at this moment takes us for another program once; nobody is to wait here.
                file_locks.hold(connection.ours, is_shared=True)
                return

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For SELECT: waits for nobody. Raises StateUnusableError."""
        with self._failures(), self._connection() as connection:
            yield connection

    def mark(self) -> Mark | None:
        """Another one after each commit, by one call of the kernel; None where that cannot be told."""
        try:
            found = self._journal.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def settled_mark(self) -> Mark | None:
        """The mark, where what is read from now on holds as long as ``mark`` gives the same; None: somebody writes, or
        did just now. Waits for nobody. Raises StateUnusableError.
        """
        mark = self.mark()
        if mark is not None and mark != self._settled and _is_old(mark) and self._is_unwritten(mark):
            self._settled = mark
        return mark if mark == self._settled else None

    def _is_unwritten(self, mark: Mark) -> bool:
        """Whether nobody is between writing to the journal and letting others see that."""
        with self._failures(), self._connection() as connection:
            if connection.in_transaction:
                return False
            connection.execute("PRAGMA busy_timeout=0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            finally:
                connection.execute(f"PRAGMA busy_timeout={int(1000 * self._waiting_seconds)}")
            file_locks.hold(connection.ours, is_shared=True)
            try:
                return self.mark() == mark
            finally:
                connection.execute("ROLLBACK")
                file_locks.let_go(connection.ours)

    def copy(self, target: Path) -> None:
        """Write what it holds at one moment into a new file. Raises StateUnusableError."""
        # By a connection of its own: SQLite waits for ever to copy from one that is within a transaction.
        with (
            self._failures(),
            contextlib.closing(sqlite3.connect(self.path)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)

    def close(self) -> None:
        """Close the connections that no thread uses; the next use opens another."""
        idle = self._idle.get(os.getpid(), [])
        while (kept := _pop(idle)) is not None:
            kept[1].close()

    def start_anew(self) -> None:
        """Remove the file, damaged or not; the next use in this process makes a new one. For what may be lost."""
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._generation += 1

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if is_locked(error):
                raise StateUnusableError(
                    "The file %(name)s of the state folder is locked by another program.",
                    hint="Send it again shortly; if it stays so, tell the operator of this service.",
                    name=self.path.name,
                ) from error
            raise StateUnusableError(
                "The file %(name)s of the state folder cannot be used: %(error)s.",
                hint="See whether %(path)s may be written by the service's user and whether the disk is full.",
                name=self.path.name,
                error=error,
                path=self.path,
            ) from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Connection]:
        """The one that this thread holds already, or one for it alone."""
        process = os.getpid()
        held: tuple[int, _Connection] | None = getattr(self._held, "connection", None)
        if held is not None and held[0] == process:
            yield held[1]
            return
        idle, generation = self._idle.setdefault(process, []), self._generation
        connection = self._take(idle)
        self._held.connection = (process, connection)
        try:
            yield connection
        finally:
            self._held.connection = None
            # Where undoing has failed too, nobody else may go on with it.
            if connection.in_transaction or len(idle) >= MAX_IDLE_CONNECTIONS:
                connection.close()
            else:
                idle.append((generation, connection))

    def _take(self, idle: list[_Idle]) -> _Connection:
        """The one that was used last: what it keeps in memory is the newest, and the processor's caches know it."""
        while (kept := _pop(idle)) is not None:
            generation, connection = kept
            if generation == self._generation:
                return connection
            connection.close()
        return self._open()

    def _open(self) -> _Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One at a time: of several that make a new file, or change its journal, SQLite fails some at once.
        with _alone(self.path.parent, OPENING_SECONDS):
            return self._open_alone()

    def _open_alone(self) -> _Connection:
        if not self.path.exists():
            # Made before SQLite makes it, which would let others read.
            os.close(_make(self.path))
        ours = _make(self.path.with_name(self.path.name + "-ours"))
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=self._waiting_seconds,
                isolation_level=None,
                check_same_thread=False,
                factory=_Connection,
            )
        except BaseException:
            os.close(ours)
            raise
        connection.own(ours)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: _Connection) -> None:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA journal_size_limit={MOST_JOURNAL_BYTES}")
        connection.execute(f"PRAGMA cache_size=-{self._pages_kib}")
        self._migrate(connection)

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


def _make(path: Path) -> int:
    """A descriptor of a file for its owner alone, made where it is missing."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666 & ~OWNER_ONLY)
    if os.geteuid() == 0:
        # An operator as root must not shut out the service, whose folder it is; SQLite sees to its own files.
        folder = path.parent.stat()
        os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


@contextlib.contextmanager
def _alone(folder: Path, seconds: float) -> Iterator[None]:
    """Hold the folder against all others who ask for this, other threads too. Raises sqlite3.OperationalError.

    The folder, and no file of the database: to close such a file would let go of all locks that this process has on it
    (fcntl(2)).
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + seconds
        while not file_locks.hold(descriptor):
            if time.monotonic() > until:
                raise sqlite3.OperationalError(f"somebody else has been opening it for {seconds:g} s")
            time.sleep(OPENING_PERIOD_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _is_old(mark: Mark) -> bool:
    """Whether a commit from now on leaves another time behind."""
    return time.time_ns() - mark[1] > SETTLED_SECONDS * 1e9


def _pop(idle: list[_Idle]) -> _Idle | None:
    """The last, unless another thread was faster."""
    try:
        return idle.pop()
    except IndexError:
        return None


def is_full(error: BaseException | None) -> bool:
    """Whether there was no room on the disk."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_locked(error: BaseException | None) -> bool:
    """Whether somebody else holds the file."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def used_bytes(connection: sqlite3.Connection) -> int:
    """What rows take; pages that were given back are used again before the file grows."""
    size, count, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return int(size * (count - free))


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
