"""A file of SQLite that threads and processes share."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import multiprocessing
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import StateUnusableError
from app.storage import sqlite as sqlite_files
from app.storage.sqlite import LOCKED_SECONDS, MAX_IDLE_CONNECTIONS, MOST_JOURNAL_BYTES, Database

FIRST = "CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);"
SECOND = "ALTER TABLE counts ADD COLUMN note TEXT DEFAULT 'a;b'; CREATE INDEX by_note ON counts (note);"


def opened(tmp_path: Path, *migrations: str) -> Database:
    return Database(tmp_path / "state" / "counts.sqlite3", migrations or (FIRST,), busy_seconds=5)


def add_one(database: Database, times: int) -> None:
    for _ in range(times):
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO counts (name, value) VALUES ('a', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
            )


def _add_elsewhere(folder: Path) -> None:
    add_one(opened(folder), 50)


def _open_with_others(folder: Path, barrier: Any, rounds: int, failures: Any) -> None:
    """Open a new file in four threads, at the moment at which three other processes do."""
    for number in range(rounds):
        database = Database(folder / str(number) / "counts.sqlite3", (FIRST,), busy_seconds=5, is_expendable=True)

        def count(database: Database = database) -> None:
            try:
                add_one(database, 1)
            except StateUnusableError as error:
                failures.put(str(error))

        threads = [threading.Thread(target=count) for _ in range(4)]
        barrier.wait(60)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def value(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute("SELECT value FROM counts WHERE name = 'a'").fetchone()["value"])


def test_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    database = opened(tmp_path)

    add_one(database, 1)

    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_all_may_be_the_first_to_open_it(tmp_path: Path) -> None:
    """SQLite alone says "database is locked" or "disk I/O error" to one of thirty, at once."""
    rounds, spawning = 10, multiprocessing.get_context("spawn")
    barrier, failures = spawning.Barrier(4), spawning.Queue()
    arguments = (tmp_path, barrier, rounds, failures)
    children = [spawning.Process(target=_open_with_others, args=arguments) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)

    assert [child.exitcode for child in children] == [0] * 4
    assert failures.empty(), failures.get()
    counted = [
        value(Database(tmp_path / str(number) / "counts.sqlite3", (FIRST,), busy_seconds=5)) for number in range(rounds)
    ]
    assert counted == [16] * rounds


def test_who_is_never_done_with_opening_does_not_hold_up_the_others_for_ever(tmp_path: Path) -> None:
    database = Database(tmp_path / "counts.sqlite3", (FIRST,), busy_seconds=0.05)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(StateUnusableError, match="somebody else has been opening it"):
            add_one(database, 1)
    finally:
        os.close(folder)

    add_one(database, 1)


def test_threads_and_processes_lose_no_write(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    # Not by fork: another thread of this process may be inside SQLite, whose locks the child would find taken for ever.
    spawning = multiprocessing.get_context("spawn")
    children = [spawning.Process(target=_add_elsewhere, args=(tmp_path,)) for _ in range(2)]
    for child in children:
        child.start()
    threads = [threading.Thread(target=add_one, args=(database, 50)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert value(database) == 201


def test_many_threads_that_ask_one_after_another_share_a_connection(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    before = _connections(database)
    together = threading.Barrier(41)

    def count() -> None:
        with alone:
            add_one(database, 1)
        # All of them are still there when the descriptors are counted.
        together.wait(30)
        together.wait(30)

    alone = threading.Lock()
    threads = [threading.Thread(target=count) for _ in range(40)]
    for thread in threads:
        thread.start()
    together.wait(30)
    after = _connections(database)
    together.wait(30)
    for thread in threads:
        thread.join()

    assert after == before == 1
    assert value(database) == 41


def test_connections_of_many_that_ask_at_once_are_closed_but_for_a_few(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    together = threading.Barrier(16)

    def read() -> None:
        with database.reading() as connection:
            together.wait(30)
            assert connection.execute("SELECT value FROM counts").fetchone()["value"] == 1

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert _connections(database) == MAX_IDLE_CONNECTIONS
    database.close()
    assert _connections(database) == 0


def test_who_reads_while_writing_sees_what_is_written(tmp_path: Path) -> None:
    database = opened(tmp_path)

    with database.transaction() as connection:
        connection.execute("INSERT INTO counts (name, value) VALUES ('a', 7)")

        assert value(database) == 7


def _connections(database: Database) -> int:
    """How many connections are open: each has a descriptor of its own of the log of changes (those of the file itself
    SQLite keeps for the next one)."""
    return _open_files().count(f"{database.path}-wal")


def _open_files() -> list[str]:
    names = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(path.readlink()))
    return names


def test_connections_that_nobody_closed_leave_no_file_open(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    folder = str(tmp_path / "state")
    assert [each for each in _open_files() if each.startswith(folder)]

    del database
    gc.collect()

    assert not [each for each in _open_files() if each.startswith(folder)]


def test_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)

    with pytest.raises(KeyError), database.transaction() as connection:
        connection.execute("UPDATE counts SET value = 7")
        raise KeyError

    assert value(database) == 1


def test_older_file_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    add_one(opened(tmp_path, FIRST), 3)

    upgraded = opened(tmp_path, FIRST, SECOND)

    with upgraded.reading() as connection:
        assert tuple(connection.execute("SELECT value, note FROM counts").fetchone()) == (3, "a;b")


def test_failed_upgrade_changes_nothing(tmp_path: Path) -> None:
    add_one(opened(tmp_path, FIRST), 3)

    with pytest.raises(StateUnusableError, match="no_such_table"):
        value(opened(tmp_path, FIRST, "CREATE TABLE more (a); INSERT INTO no_such_table VALUES (1);"))

    assert value(opened(tmp_path, FIRST)) == 3
    assert value(opened(tmp_path, FIRST, SECOND)) == 3


def test_file_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    add_one(opened(tmp_path, FIRST, SECOND), 1)

    with pytest.raises(StateUnusableError, match="newer"):
        value(opened(tmp_path, FIRST))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    database = opened(tmp_path)
    database.path.parent.mkdir()
    database.path.write_bytes(b"not a database at all, " * 100)

    with pytest.raises(StateUnusableError, match=r"counts\.sqlite3 .* not a database"):
        value(database)


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    child = "CREATE TABLE notes (name TEXT REFERENCES counts (name) DEFERRABLE INITIALLY DEFERRED);"
    database = opened(tmp_path, FIRST + child)

    # SQLite looks at a deferred reference when it commits, and leaves the transaction open when that is refused.
    with pytest.raises(StateUnusableError), database.transaction() as connection:
        connection.execute("INSERT INTO notes (name) VALUES ('nobody')")

    add_one(database, 1)
    assert value(database) == 1
    with database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone()[0] == 0


# ── another program holds the file ───────────────────────────────────────────────────────────────────────────────────

SLACK_SECONDS = 4.0


@contextlib.contextmanager
def held(path: Path, *statements: str) -> Iterator[None]:
    """Another program, such as a backup or a person with the program sqlite3, holds the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in (*statements, "BEGIN EXCLUSIVE"):
            other.execute(statement)
        # With locking_mode=EXCLUSIVE a lock begins with the first use.
        other.execute("INSERT INTO counts (name, value) VALUES ('other', 1)")
        yield
        other.execute("ROLLBACK")


def test_another_program_that_holds_the_file_costs_who_writes_a_moment(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    began = time.monotonic()

    with held(database.path), pytest.raises(StateUnusableError, match=r"counts\.sqlite3 .* is locked by another"):
        add_one(database, 1)

    assert time.monotonic() - began < 2 * LOCKED_SECONDS + SLACK_SECONDS
    assert value(database) == 1
    add_one(database, 1)
    assert value(database) == 2


def test_another_program_that_holds_the_file_costs_who_reads_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)

    with held(database.path):
        assert value(database) == 1


def test_another_program_that_lets_nobody_read_costs_a_moment(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    database.close()
    began = time.monotonic()

    with held(database.path, "PRAGMA locking_mode=EXCLUSIVE"), pytest.raises(StateUnusableError, match="is locked by"):
        value(database)

    assert time.monotonic() - began < 2 * LOCKED_SECONDS + SLACK_SECONDS


def test_one_of_ours_is_waited_for_however_slow_its_disk_is(tmp_path: Path) -> None:
    """Of another process, too: what tells is a lock that nobody else takes."""
    ours, other = opened(tmp_path), opened(tmp_path)
    add_one(ours, 1)
    add_one(other, 1)
    writer = threading.Thread(target=add_one, args=(other, 1))

    with ours.transaction():
        writer.start()
        time.sleep(4 * LOCKED_SECONDS)
        assert writer.is_alive()
    writer.join(60)

    assert value(ours) == 3


def test_one_of_ours_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    ours = opened(tmp_path)
    add_one(ours, 1)
    impatient = Database(ours.path, (FIRST,), busy_seconds=0.05)

    with ours.transaction(), pytest.raises(StateUnusableError, match="is locked"):
        add_one(impatient, 1)


def test_journal_that_grew_while_another_program_read_becomes_small_again(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    journal = database.path.with_name(database.path.name + "-wal")

    def write(times: int) -> None:
        for number in range(times):
            with database.transaction() as connection:
                connection.execute("INSERT INTO counts (name, value) VALUES (?, zeroblob(1000000))", (f"{number}",))
                connection.execute("DELETE FROM counts")

    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM counts").fetchone()
        write(40)
        assert journal.stat().st_size > 2 * MOST_JOURNAL_BYTES
    write(10)

    assert journal.stat().st_size <= MOST_JOURNAL_BYTES


def let_settle(database: Database, age_seconds: float = 1000.0) -> None:
    """As if nobody had written for so long."""
    moment = time.time() - age_seconds
    os.utime(f"{database.path}-wal", (moment, moment))


@pytest.fixture
def settles_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, what was written in a test was written just now."""
    monkeypatch.setattr(sqlite_files, "SETTLED_SECONDS", 600.0)


@pytest.mark.usefixtures("settles_late")
def test_a_mark_is_another_after_each_commit_of_any_program(tmp_path: Path) -> None:
    database = opened(tmp_path)
    add_one(database, 1)
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        for age_seconds in range(2000, 2020):
            let_settle(database, age_seconds)
            mark, before = database.settled_mark(), value(database)
            assert mark == database.mark() is not None
            # In turns by us and by somebody else.
            if age_seconds % 2:
                add_one(database, 1)
            else:
                other.execute("UPDATE counts SET value = value + 1")
            assert database.mark() != mark
            assert database.settled_mark() is None
            assert value(database) == before + 1
        # A journal that begins anew keeps its size.
        other.execute("PRAGMA wal_checkpoint(RESTART)")
        let_settle(database)
        mark = database.settled_mark()
        assert mark is not None
        add_one(database, 1)
        assert database.mark() != mark


@pytest.mark.usefixtures("settles_late")
def test_what_somebody_writes_at_the_moment_is_not_settled(tmp_path: Path) -> None:
    database = opened(tmp_path)
    assert database.settled_mark() is None
    add_one(database, 1)
    assert database.settled_mark() is None

    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        let_settle(database)
        assert database.settled_mark() is None
        assert value(database) == 1
        other.execute("COMMIT")

    assert database.settled_mark() is not None
    # Once seen, it is not looked for again while a writer has only begun.
    with database.transaction():
        assert database.settled_mark() is not None
    let_settle(database, 3000)
    with database.transaction():
        assert database.settled_mark() is None
    # The lock is free again, and writers wait as before.
    add_one(database, 1)
    assert value(database) == 2
    with database.reading() as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 1000 * LOCKED_SECONDS
