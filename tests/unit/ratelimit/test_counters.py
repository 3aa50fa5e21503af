"""Counts of requests: exact over processes, begun anew with each window, and never a reason for an error."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.config import ROOT
from app.errors import StateUnusableError
from app.ratelimit import counters
from app.ratelimit.counters import FallbackStorage, FileStorage, MemoryStorage, Storage
from app.storage import sqlite
from tests import redis_servers, servers
from tests.fakes import FakeClock, eventually
from tests.redis_servers import RedisServer


@pytest.fixture
def now() -> FakeClock:
    """The time of day."""
    return FakeClock(1_800_000_000.0)


@pytest.fixture
def storage(tmp_path: Path, now: FakeClock) -> FileStorage:
    return FileStorage(tmp_path, now)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with redis_servers.running() as server:
        yield server


def counts(storage: Storage, times: int = 1) -> list[int]:
    """What so many requests of one caller are told."""
    return [storage.count("a", 60)[0] for _ in range(times)]


def test_window_begins_with_its_first_request_and_then_anew(storage: FileStorage, now: FakeClock) -> None:
    begin = now.now
    assert [storage.count("a", 60) for _ in range(3)] == [(1, begin + 60), (2, begin + 60), (3, begin + 60)]
    now.now += 59.9
    assert storage.count("a", 60) == (4, begin + 60)
    now.now += 0.1
    assert storage.count("a", 60) == (1, now.now + 60)


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_a_clock_that_is_set_refuses_nobody_for_longer_than_a_window(
    storage: FileStorage, now: FakeClock, hours: int
) -> None:
    counts(storage, 100)
    now.now += hours * 3600

    assert storage.count("a", 60) == (1, now.now + 60)


@pytest.mark.parametrize("hours", [-24, 24])
def test_counts_in_memory_go_by_a_clock_that_nobody_sets(now: FakeClock, hours: int) -> None:
    clock = FakeClock()
    storage = counters.MemoryStorage(clock, now)
    assert counts(storage, 3) == [1, 2, 3]

    now.now += hours * 3600
    clock.now += 59
    assert storage.count("a", 60) == (4, now.now + 1)
    clock.now += 1
    assert storage.count("a", 60) == (1, now.now + 60)


def test_windows_in_memory_that_have_ended_are_swept() -> None:
    clock = FakeClock(1000.0)
    storage = counters.MemoryStorage(clock)
    for number in range(100):
        storage.count(str(number), 10)
    clock.now += counters.SWEEP_SECONDS + 1
    storage.count("later", 10)

    assert set(storage._counts) == {"later"}


def test_counts_of_several_keys_do_not_mix(storage: FileStorage, now: FakeClock) -> None:
    counts(storage, 5)

    assert storage.count("b", 10) == (1, now.now + 10)
    assert storage.count("a", 60) == (6, now.now + 60)


def test_windows_that_have_ended_are_swept(storage: FileStorage, now: FakeClock, tmp_path: Path) -> None:
    for key in range(50):
        storage.count(str(key), 10)
    now.now += counters.SWEEP_SECONDS + 11

    storage.count("new", 10)

    with sqlite3.connect(tmp_path / counters.FILE_NAME) as file:
        assert file.execute("SELECT key FROM counts").fetchall() == [("new",)]
    file.close()


COUNT_MANY = """
import sys; from pathlib import Path; from app.ratelimit.counters import FileStorage
storage = FileStorage(Path(sys.argv[1]))
print(sum(storage.count("a", 3600)[0] <= 100 for _ in range(500)))
"""


def test_exactly_as_many_as_allowed_pass_over_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT_MANY, str(tmp_path)]
    several = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    passed = [int(each.communicate(timeout=60)[0]) for each in several]

    assert sum(passed) == 100
    assert FileStorage(tmp_path).count("a", 3600)[0] == 2001


class BrokenStorage(MemoryStorage):
    """Fails until it is mended."""

    is_broken = True
    asked = 0

    def count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        self.asked += 1
        if self.is_broken:
            raise StateUnusableError("It is broken.")
        return super().count(key, seconds, amount)

    def check(self) -> bool:
        return not self.is_broken


def test_storage_that_failed_is_left_alone_until_it_is_well() -> None:
    broken = BrokenStorage()
    storage = FallbackStorage([("first", broken), ("memory", MemoryStorage())], probe_seconds=0.01)

    assert counts(storage, 3) == [1, 2, 3]
    assert (broken.asked, storage.check()) == (1, False)
    broken.is_broken = False
    eventually(storage.check, "the storage to be asked again")
    assert counts(storage) == [1]


def test_file_that_cannot_be_used_costs_no_error(tmp_path: Path) -> None:
    (tmp_path / counters.FILE_NAME).write_bytes(b"this is no database " * 100)

    storage = counters.make(tmp_path)

    assert counts(storage, 3) == [1, 2, 3]


def test_damaged_file_is_begun_anew_at_the_start(tmp_path: Path) -> None:
    counters.mend(tmp_path)
    assert not list(tmp_path.iterdir())
    counts(FileStorage(tmp_path))
    counters.mend(tmp_path)
    assert counts(FileStorage(tmp_path)) == [2]
    for path in tmp_path.iterdir():
        path.write_bytes(b"this is no database " * 100)

    counters.mend(tmp_path)

    assert counts(FileStorage(tmp_path)) == [1]


def test_redis_counts_for_several_machines(tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "REDIS_SECONDS", 20.0)  # a busy machine is no failure
    one, two = (counters.make(tmp_path / name, redis.url) for name in ("one", "two"))

    assert [*counts(one), *counts(two), *counts(one)] == [1, 2, 3]
    assert 58 < one.count("a", 60)[1] - time.time() <= 60
    assert not list(tmp_path.rglob(counters.FILE_NAME))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_redis_that_is_down_or_hangs_costs_a_moment_once(
    tmp_path: Path, redis: RedisServer, how: signal.Signals
) -> None:
    storage: Storage = counters.make(tmp_path, redis.url)
    assert counts(storage) == [1]
    redis.process.send_signal(how)
    if how == signal.SIGKILL:
        redis.process.wait()

    told, seconds = [], []
    for _ in range(5):
        began = time.monotonic()
        told += counts(storage)
        seconds.append(time.monotonic() - began)

    assert told == [1, 2, 3, 4, 5]
    # Redis' patience is 0.1 s; the rest is for a busy machine.
    assert seconds[0] < 1.0
    assert sum(seconds[1:]) < 1.0


def test_redis_that_comes_back_is_asked_again(tmp_path: Path, redis: RedisServer) -> None:
    storage = counters.make(tmp_path, redis.url, probe_seconds=0.02)
    counts(storage)
    servers.suspend(redis.process.pid)
    assert counts(storage) == [1]

    redis.process.send_signal(signal.SIGCONT)

    eventually(storage.check, "Redis to be asked again")
    assert counts(storage)[0] >= 2


# ── somebody else holds the file ─────────────────────────────────────────────────────────────────────────────────────


def test_locked_file_costs_one_request_a_moment_and_is_counted_in_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage, before = counters.make(tmp_path, probe_seconds=0.05), set(threading.enumerate())
    counts(storage)
    with sqlite3.connect(tmp_path / counters.FILE_NAME, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        spent = [timed(lambda: counts(storage)) for _ in range(20)]
        told = len(caplog.records)
        threads = [each for each in set(threading.enumerate()) - before if each.name.startswith("probe of ")]
        holder.execute("ROLLBACK")
    holder.close()

    assert told == len(threads) == 1
    assert sum(spent) < 1
    eventually(storage.check, "the file to be counted in again")
    assert counts(storage) == [2]


def test_whoever_waits_for_one_that_has_lost_its_core_is_counted_with_it(tmp_path: Path) -> None:
    slow, storage = FileStorage(tmp_path), counters.make(tmp_path)
    counts(storage)
    with slow._database.transaction():
        waiting = ThreadPoolExecutor(1).submit(counts, storage)
        with pytest.raises(TimeoutError):
            waiting.result(0.4)

    assert waiting.result() == [2]
    assert storage.check()


def test_whoever_waits_for_others_to_open_their_files_is_counted_with_them(tmp_path: Path) -> None:
    storage = counters.make(tmp_path)
    with sqlite._alone(tmp_path, 1):
        waiting = ThreadPoolExecutor(1).submit(counts, storage)
        with pytest.raises(TimeoutError):
            waiting.result(0.4)

    assert waiting.result() == [1]
    assert storage.check()
    assert counts(FileStorage(tmp_path)) == [2]


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_callers_who_begin_a_window_together_are_all_counted(tmp_path: Path) -> None:
    """One who read the time and then waited for the file took the other's window for one of the future."""
    for number in range(12):
        storage, together = FileStorage(tmp_path / str(number)), threading.Barrier(6)

        def count(storage: FileStorage, together: threading.Barrier) -> int:
            together.wait()
            return storage.count("k", 3600)[0]

        with ThreadPoolExecutor(6) as pool:
            found = [pool.submit(count, storage, together) for _ in range(6)]
            assert sorted(each.result() for each in found) == [1, 2, 3, 4, 5, 6]
