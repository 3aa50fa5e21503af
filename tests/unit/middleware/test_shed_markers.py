"""Notes for Apache: when they go up, when they come down, and that none stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.config import ROOT
from app.web.middleware import shed_markers
from app.web.middleware.shed_markers import MAX_CALLERS, MAX_COMING, REMEMBER_SECONDS, ShedMarkers
from tests.fakes import FakeClock, eventually

CALLER = "192.0.2.7"


class FakeGate:
    """Refuses whom the test names."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.asked: list[tuple[str, bool]] = []
        self.coming: list[float] = []

    def is_refused(self, caller: str, has_notice: bool, coming: float) -> bool:
        self.asked.append((caller, has_notice))
        self.coming.append(coming)
        return caller in self.refused


@pytest.fixture
def controller() -> FakeGate:
    return FakeGate()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def board(tmp_path: Path, controller: FakeGate, clock: FakeClock) -> ShedMarkers:
    return ShedMarkers(tmp_path, controller.is_refused, clock)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_refused_caller_has_a_notice_until_there_is_room(
    board: ShedMarkers, controller: FakeGate, tmp_path: Path
) -> None:
    controller.refused = {CALLER}
    board.update(CALLER)
    up = names(tmp_path)
    board.ended()
    still_up = names(tmp_path)
    controller.refused = set()
    board.ended()

    assert (up, still_up, names(tmp_path)) == ([CALLER], [CALLER], [])
    assert controller.asked == [(CALLER, False), (CALLER, True), (CALLER, True)]


def test_caller_who_would_be_let_in_by_now_gets_no_notice(board: ShedMarkers, tmp_path: Path) -> None:
    board.update(CALLER)

    assert names(tmp_path) == []


def test_each_caller_has_a_notice_of_its_own(board: ShedMarkers, controller: FakeGate, tmp_path: Path) -> None:
    controller.refused = {CALLER, "2001:db8::7"}
    for caller in controller.refused:
        board.update(caller)
    controller.refused = {CALLER}
    board.ended()

    assert names(tmp_path) == [CALLER]


def test_notice_goes_up_earlier_the_more_requests_were_on_their_way(board: ShedMarkers, controller: FakeGate) -> None:
    for _ in range(20):
        controller.refused = {CALLER}
        for _ in range(1 + 10):
            board.update(CALLER)
        controller.refused = set()
        board.ended()
    board.update(CALLER)

    assert controller.coming[0] == 0
    assert controller.coming[-1] == pytest.approx(10, rel=0.02)


def test_flood_of_long_ago_is_forgotten(board: ShedMarkers, controller: FakeGate, clock: FakeClock) -> None:
    controller.refused = {CALLER}
    for _ in range(1 + 10):
        board.update(CALLER)
    controller.refused = set()
    board.ended()
    board.update(CALLER)
    clock.now += REMEMBER_SECONDS
    board.update(CALLER)

    assert controller.coming[-2:] == [2, 0]


def test_places_kept_for_those_on_their_way_are_bounded(board: ShedMarkers, controller: FakeGate) -> None:
    for _ in range(20):
        controller.refused = {CALLER}
        for _ in range(1 + 500):
            board.update(CALLER)
        controller.refused = set()
        board.ended()
    board.update(CALLER)

    assert controller.coming[-1] == MAX_COMING


@pytest.mark.parametrize("caller", ["", "unix:", "../../etc/passwd", "a/b", "host.example.org", "1" * 46])
def test_what_is_no_address_names_no_file(
    board: ShedMarkers, controller: FakeGate, tmp_path: Path, caller: str
) -> None:
    controller.refused = {caller}
    board.update(caller)

    assert names(tmp_path) == []
    assert controller.asked == []


def test_many_addresses_do_not_fill_the_disk(board: ShedMarkers, controller: FakeGate, tmp_path: Path) -> None:
    controller.refused = {f"10.0.{number // 256}.{number % 256}" for number in range(3 * MAX_CALLERS)}
    for caller in controller.refused:
        board.update(caller)

    assert len(names(tmp_path)) == MAX_CALLERS


def test_folder_that_cannot_be_written_is_logged_and_harms_nobody(
    tmp_path: Path, controller: FakeGate, caplog: pytest.LogCaptureFixture
) -> None:
    board = ShedMarkers(tmp_path / "missing", controller.is_refused)
    controller.refused = {CALLER}

    board.update(CALLER)
    board.ended()

    assert f"the shed marker for {CALLER} cannot be changed" in caplog.text


def test_no_notice_stays_behind_when_refusals_and_ends_race(tmp_path: Path) -> None:
    refused = threading.Event()
    board = ShedMarkers(tmp_path, lambda *_: refused.is_set())

    def flood() -> None:
        for _ in range(500):
            refused.set()
            board.update(CALLER)
            refused.clear()
            board.ended()

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert names(tmp_path) == []


def test_each_process_has_a_slot_and_what_a_dead_one_left_is_removed(tmp_path: Path) -> None:
    first, second = shed_markers.claim_slot(tmp_path, 2), shed_markers.claim_slot(tmp_path, 2)
    assert first and second
    (first[0] / CALLER).touch()
    os.close(first[1])
    successor = shed_markers.claim_slot(tmp_path, 2)

    assert first[0] != second[0]
    assert shed_markers.claim_slot(tmp_path, 2) is None
    assert successor
    assert successor[0] == first[0]
    assert names(successor[0]) == []
    for _, lock in (second, successor):
        os.close(lock)


def test_notice_comes_down_though_no_request_ends(board: ShedMarkers, controller: FakeGate, tmp_path: Path) -> None:
    controller.refused = {CALLER}
    board.update(CALLER)
    controller.refused = set()

    eventually(lambda: names(tmp_path) == [])
    eventually(lambda: board._watch is None)


def test_notice_that_cannot_be_removed_is_removed_later(
    board: ShedMarkers, controller: FakeGate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.refused = {CALLER}
    board.update(CALLER)
    controller.refused, failed = set(), []

    def fail(self: Path, missing_ok: bool = False) -> None:
        failed.append(self)
        raise OSError("read-only")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", fail)
        board.ended()
    assert failed and (tmp_path / CALLER).is_file()

    eventually(lambda: names(tmp_path) == [])


def test_notice_ends_with_its_process(tmp_path: Path) -> None:
    """However it ends: Apache asks whether there is a file, and a link to nowhere is none."""
    code = (
        "import sys; from pathlib import Path; from app.web.middleware.shed_markers import ShedMarkers;"
        f"ShedMarkers(Path(sys.argv[1]), lambda *_: True).update('{CALLER}'); print('up', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdin
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"up\n"
        assert (tmp_path / CALLER).is_file()
        process.kill()
        process.wait()

    assert names(tmp_path) == [CALLER]
    assert not (tmp_path / CALLER).is_file()
