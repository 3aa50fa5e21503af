"""One budget of memory for all processes: never more than there is, given back by the dead, small ones still fit."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.config import ROOT
from app.errors import MemoryShortError
from app.inference.memory_budget import MEGABYTE, Budget
from app.inference.memory_ledger import FILE, Ledger
from app.storage import file_locks

TOTAL = 640 * MEGABYTE


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def soon() -> float:
    return time.monotonic() + 0.05


def test_what_is_held_is_given_back(state: Path) -> None:
    budget = Budget.of(TOTAL, state)

    with budget.hold("pixels") as hold:
        hold.grow(500 * MEGABYTE, soon(), "The image")
        assert budget.used_bytes == 500 * MEGABYTE

    assert budget.used_bytes == 0


def test_two_processes_share_what_there_is(state: Path) -> None:
    first, second = Budget.of(TOTAL, state), Budget.of(TOTAL, state)
    # Of one process here, so its row would be found twice; another one's is what counts.
    hold = first.hold("pixels")
    hold.grow(400 * MEGABYTE, soon(), "The image")
    code = (
        "import sys, time; from pathlib import Path; from app.inference.memory_budget import Budget;"
        f"budget = Budget.of({TOTAL}, Path(sys.argv[1]));"
        "print(*(budget.take('pixels', size * 2**20, time.monotonic()) for size in (300, 90)))"
    )
    command = [sys.executable, "-c", code, str(state)]

    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == [
        "False",
        "True",
    ]
    # That process has ended without giving back.
    hold.close()
    assert second.take("pixels", 500 * MEGABYTE, soon())


def test_who_waits_gets_what_another_gives_back(state: Path) -> None:
    budget = Budget.of(TOTAL, state)
    hold = budget.hold("pixels")
    hold.grow(500 * MEGABYTE, soon(), "The image")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(budget.take, "pixels", 300 * MEGABYTE, time.monotonic() + 20)
        assert not waiting.done()
        hold.close()

        assert waiting.result() is True


def test_waiting_ends_at_its_moment_with_the_reason(state: Path) -> None:
    budget = Budget.of(TOTAL, state)
    assert budget.take("pixels", 500 * MEGABYTE, soon())

    with pytest.raises(MemoryShortError, match="The image needs 300 MB of memory, which are not free") as caught:
        budget.hold("pixels").grow(300 * MEGABYTE, soon(), "The image")

    assert caught.value.retry_after_seconds


def test_large_ones_leave_room_for_small_ones(state: Path) -> None:
    budget = Budget.of(TOTAL, state)
    while budget.take("pixels", 40 * MEGABYTE, time.monotonic()):
        pass

    assert budget.take("pixels", 5 * MEGABYTE, soon())


def test_bodies_leave_room_for_pixels(state: Path) -> None:
    budget = Budget.of(TOTAL, state)
    while budget.take("body", 64 * MEGABYTE, time.monotonic()):
        pass

    assert budget.used_bytes == 192 * MEGABYTE
    assert budget.take("body", MEGABYTE, soon())
    assert budget.take("pixels", 300 * MEGABYTE, soon())


def test_many_threads_never_hold_more_than_there_is(state: Path) -> None:
    budget, most, lock = Budget.of(TOTAL, state), 0, threading.Lock()

    def work(number: int) -> None:
        nonlocal most
        for _ in range(50):
            with budget.hold("pixels") as hold:
                hold.grow((number + 1) * 9 * MEGABYTE, time.monotonic() + 20, "The image")
                with lock:
                    most = max(most, budget.used_bytes)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))

    assert 0 < most <= TOTAL
    assert budget.used_bytes == 0


@pytest.mark.parametrize("path", [None, "/nowhere/at/all"])
def test_without_a_file_a_process_counts_alone(path: str | None) -> None:
    budget = Budget(TOTAL, Ledger(Path(path) if path else None))

    assert budget.take("pixels", 500 * MEGABYTE, soon())
    assert not budget.take("pixels", 500 * MEGABYTE, soon())


def test_file_of_rubbish_counts_for_nothing(state: Path) -> None:
    (state / FILE).write_bytes(b"\xff" * 1001)

    assert Budget.of(TOTAL, state).take("pixels", 500 * MEGABYTE, soon())


def test_ledger_that_is_gone_leaves_no_file_open(state: Path) -> None:
    def is_open() -> bool:
        return any(os.path.realpath(each) == str(state / FILE) for each in Path("/proc/self/fd").iterdir())

    ledger = Ledger(state / FILE)
    ledger.write(1, 1)
    assert is_open()

    del ledger
    gc.collect()

    assert not is_open()


def test_ordinary_requests_take_no_lock(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget.of(TOTAL, state)
    assert budget.take("pixels", MEGABYTE, soon())
    monkeypatch.delattr(file_locks, "hold")

    for purpose in ("pixels", "body"):
        assert budget.take(purpose, MEGABYTE, soon())
        budget.give_back(purpose, MEGABYTE)


def test_nothing_counts_that_nobody_holds(state: Path) -> None:
    """What processes had taken and given back was kept from large ones: in 2 GB, a picture of 49 megapixels waited to
    its deadline for memory that nobody used.
    """
    others = [Budget.of(TOTAL, state) for _ in range(16)]
    for each in others:
        for purpose in ("pixels", "body"):
            assert each.take(purpose, 8 * MEGABYTE, soon())
            each.give_back(purpose, 8 * MEGABYTE)

    assert Budget.of(TOTAL, state).take("pixels", 544 * MEGABYTE, soon())


def test_full_disk_counts_alone(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    assert Budget.of(TOTAL, state).take("pixels", 500 * MEGABYTE, soon())
    assert Budget.of(TOTAL, state).take("pixels", 500 * MEGABYTE, soon())
