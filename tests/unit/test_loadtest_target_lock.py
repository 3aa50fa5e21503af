"""One load at a time on one target; whoever dies lets go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loadtest import target_lock
from loadtest.statuses import UsageError

BOX = "http://box:8000"
HOLDER = """
import sys, time
from pathlib import Path
from loadtest import target_lock
with target_lock.hold(sys.argv[1], print, Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_one_waits_says_so_once_and_goes_on(tmp_path: Path) -> None:
    order: list[str] = []
    has_told = threading.Event()

    def tell(line: str) -> None:
        order.append(line)
        has_told.set()

    def second() -> None:
        with target_lock.hold(BOX, tell, tmp_path):
            order.append("second")

    waiting = threading.Thread(target=second)
    with target_lock.hold(BOX, order.append, tmp_path):
        waiting.start()
        assert has_told.wait(10)
        order.append("first")
    waiting.join(10)

    assert order == [f"Another load test of {BOX} is running; this one continues when it has ended.", "first", "second"]


def test_never_do_two_hold_it(tmp_path: Path) -> None:
    inside, most = [0], [0]
    begin = threading.Barrier(4)

    def ask() -> None:
        begin.wait(10)
        for _ in range(50):
            with target_lock.hold(BOX, lambda _line: None, tmp_path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                # Lets the others run.
                os.sched_yield()
                inside[0] -= 1

    all_of_them = [threading.Thread(target=ask) for _ in range(4)]
    for each in all_of_them:
        each.start()
    for each in all_of_them:
        each.join(30)

    assert not any(each.is_alive() for each in all_of_them)
    assert most == [1]


def test_another_target_is_not_waited_for(tmp_path: Path) -> None:
    told: list[str] = []

    with target_lock.hold(BOX, told.append, tmp_path), target_lock.hold("http://box:8001", told.append, tmp_path):
        pass

    assert not told


def test_a_run_that_fails_lets_go(tmp_path: Path) -> None:
    told: list[str] = []

    with pytest.raises(ZeroDivisionError), target_lock.hold(BOX, told.append, tmp_path):
        raise ZeroDivisionError
    with target_lock.hold(BOX, told.append, tmp_path):
        pass

    assert not told


def test_a_run_that_is_killed_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, BOX, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told: list[str] = []

        def end(line: str) -> None:
            told.append(line)
            holder.kill()

        with target_lock.hold(BOX, end, tmp_path):
            assert len(told) == 1


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_lock.tempfile, "gettempdir", lambda: str(tmp_path))
    mine = os.getuid()
    (tmp_path / f"cask-loadtest-locks-{mine + 1}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)

    with pytest.raises(UsageError, match="belongs to user"), target_lock.hold(BOX, print):
        pass
