"""Who is silent, stopped or stuck is ended, and nobody else; readiness hears of it long before."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.supervision import pulse, supervision
from app.supervision.supervisor import LOADING_SECONDS, PERIOD_SECONDS, TELL_SECONDS, Supervisor
from app.telemetry.shards import LOADING, SERVING, STOPPING, Sign
from tests.fakes import FakeClock

HANG_SECONDS = 10.0


class Watch:
    """A supervisor over some made-up processes."""

    def __init__(self, *roles: str) -> None:
        self.clock = FakeClock()
        self.signs = {role: Sign(role, 100 + number, 7, 1, 0.0, SERVING, 0) for number, role in enumerate(roles)}
        self.silent: set[str] = set()
        self.stopped: set[int] = set()
        self.others: list[int] = []
        self.ended: list[int] = []
        self.noted: list[int] = []
        self.told: list[bool] = []
        self.supervisor = Supervisor(
            lambda: list(self.signs.values()),
            HANG_SECONDS,
            others=lambda known: self.others,
            clock=self.clock,
            is_stopped=lambda pid: pid in self.stopped,
            kill=self.ended.append,
            note=self.noted.append,
            tell=self.told.append,
        )

    def change(self, role: str, **values: object) -> None:
        self.signs[role] = replace(self.signs[role], **values)  # type: ignore[arg-type]

    def look_for(self, seconds: float) -> list[int]:
        for _ in range(round(seconds / PERIOD_SECONDS)):
            self.clock.now += PERIOD_SECONDS
            for role in self.signs.keys() - self.silent:
                self.change(role, beat=self.signs[role].beat + 1)
            self.supervisor.look()
        return self.ended


@pytest.fixture
def watch() -> Watch:
    return Watch("web", "engine", "jobs", "ops")


def test_who_gives_signs_is_left_alone(watch: Watch) -> None:
    assert watch.look_for(100) == []
    assert watch.supervisor.troubles() == []


@pytest.mark.parametrize("role", ["web", "engine", "jobs", "ops"])
def test_who_is_silent_is_ended_once_and_its_successor_told_why(watch: Watch, role: str) -> None:
    watch.silent.add(role)
    watch.look_for(1)

    assert watch.look_for(HANG_SECONDS - 1) == []
    assert watch.look_for(5) == [watch.signs[role].pid]
    assert watch.noted == watch.ended


def test_readiness_hears_of_silence_within_two_seconds(watch: Watch) -> None:
    watch.look_for(1)
    watch.silent |= {"web", "jobs"}
    watch.look_for(2)

    (trouble,) = watch.supervisor.troubles()
    assert "web: process 100 has given no sign of life" in trouble
    assert TELL_SECONDS + PERIOD_SECONDS < 2


@pytest.mark.parametrize(("role", "seconds"), [("web", 2.5), ("ops", 2.5), ("engine", None), ("jobs", None)])
def test_who_is_stopped_and_holds_others_up_is_ended_quickly(watch: Watch, role: str, seconds: float | None) -> None:
    pid = watch.signs[role].pid
    watch.stopped.add(pid)
    watch.look_for(2.5)

    assert watch.ended == ([pid] if seconds else [])
    assert bool(watch.supervisor.troubles()) == (role != "jobs")


def test_stopped_child_of_apache_is_ended(watch: Watch) -> None:
    watch.others = [77]
    watch.look_for(60)
    assert watch.ended == []

    watch.stopped.add(77)
    assert watch.look_for(2.5) == [77]


def test_who_makes_no_progress_is_ended(watch: Watch) -> None:
    watch.change("engine", stuck_seconds=9.9)
    watch.look_for(1)
    assert watch.ended == []
    assert "engine: process 101 has made no progress for 9.9 s" in watch.supervisor.troubles()

    watch.change("engine", stuck_seconds=10.0)
    assert watch.look_for(1) == [101]


def test_machine_that_slept_has_not_been_silent(watch: Watch) -> None:
    watch.silent |= set(watch.signs)
    watch.look_for(2)
    watch.clock.now += 3600

    assert watch.look_for(HANG_SECONDS - 4) == []


def test_who_loads_is_given_longer(watch: Watch) -> None:
    watch.silent.add("engine")
    watch.change("engine", mood=LOADING)
    watch.look_for(1)

    assert watch.look_for(LOADING_SECONDS - 2) == []
    assert watch.look_for(3) == [101]


def test_who_stops_by_itself_is_left_alone(watch: Watch) -> None:
    watch.silent.add("engine")
    watch.change("engine", mood=STOPPING)

    assert watch.look_for(100) == []
    assert watch.supervisor.pid("engine") is None


def test_who_has_given_no_sign_yet_is_still_starting(watch: Watch) -> None:
    watch.silent.add("web")
    watch.change("web", beat=0)

    assert watch.look_for(100) == []


def test_new_process_of_the_same_number_has_its_whole_time(watch: Watch) -> None:
    watch.silent.add("web")
    watch.look_for(9)
    watch.change("web", born=8)

    assert watch.look_for(9) == []


def test_while_ops_is_silent_apache_is_told_by_a_file_that_needs_its_witness(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / pulse.SILENCE
    note = supervision.SilenceNote(tmp_path)
    for is_well in (True, False, False):
        note.tell(is_well)
        assert path.is_file() != is_well
    assert str(path.readlink()) == f"/proc/{os.getpid()}/stat"

    note.tell(True)
    assert not path.is_symlink()
    note.tell(False)
    supervision.SilenceNote(tmp_path)
    assert not path.is_symlink()


def test_each_look_says_whether_all_are_well(watch: Watch) -> None:
    watch.look_for(1)
    assert watch.told[-1] is True

    watch.silent.add("ops")
    watch.look_for(2)

    assert watch.told[-1] is False
