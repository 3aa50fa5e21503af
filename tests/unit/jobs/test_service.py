"""The worker's process: one at a time, a sign of life each second, and tidied up now and then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from app.jobs import heartbeat
from app.jobs.heartbeat import Heartbeat
from app.jobs.service import DeferredPredictor, Service
from app.jobs.store import JobStore
from app.jobs.webhooks import Messenger
from app.jobs.worker import Worker
from app.ops.watchdog import JobsWatchdog
from tests import fakes
from tests.fakes import FakeClock, FakeEngine, picture
from tests.unit.jobs.conftest import add, finish_all, images


class IdleWorker:
    """Counts how often it is asked to look."""

    busy_seconds = 0.0
    looks = 0

    def look(self) -> None:
        self.looks += 1


@pytest.fixture
def service(store: JobStore, tmp_path: Path, clock: FakeClock) -> Service:
    settings = fakes.make_settings(tmp_path, tmp_path / "models")
    return Service(settings, store, cast(Worker, IdleWorker()), Messenger(store, settings), clock)


def test_turn_beats_once_a_second(service: Service, tmp_path: Path, clock: FakeClock) -> None:
    service.turn()
    first = heartbeat.read(tmp_path)
    assert first is not None
    assert first.pid == os.getpid()
    assert first.is_alive
    assert 0 <= first.age_seconds < 60

    clock.now += 0.5
    service.turn()
    assert heartbeat.read(tmp_path) == first
    clock.now += 0.6
    service.turn()
    assert heartbeat.read(tmp_path) != first


def test_turn_tidies_up_now_and_then(service: Service, store: JobStore, clock: FakeClock) -> None:
    job = add(store)
    finish_all(store)
    service.turn()
    assert images(store) == set()

    clock.now += 601
    service.turn()
    assert store.get(job.id).state == "expired"
    assert store.results(job.id) == []


def test_turn_survives_a_folder_that_cannot_be_used(service: Service, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    (tmp_path / "jobs").write_text("in the way")

    service.turn()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_sign_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / heartbeat.FILE).write_text(text)

    assert heartbeat.read(tmp_path) is None


def test_sign_of_a_process_that_ended_is_not_alive(tmp_path: Path) -> None:
    heartbeat.beat(tmp_path, 0.0)
    path = tmp_path / heartbeat.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "born": 1}))

    found = heartbeat.read(tmp_path)
    assert found is not None
    assert not found.is_alive


# ── the watchdog ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sign(age_seconds: float, busy_seconds: float = 0.0, born: int | None = None) -> Heartbeat:
    from app import machine

    real = machine.born(os.getpid()) or 0
    return Heartbeat(os.getpid(), real if born is None else born, heartbeat._now() - age_seconds, busy_seconds)


@pytest.mark.parametrize(
    ("said", "is_ended"),
    [
        (None, False),
        ({"age_seconds": 1}, False),
        ({"age_seconds": 40}, False),
        ({"age_seconds": 70}, True),
        ({"age_seconds": 70, "born": 1}, False),
        ({"age_seconds": 1, "busy_seconds": 100}, False),
        ({"age_seconds": 1, "busy_seconds": 130}, True),
    ],
)
def test_watchdog_ends_a_worker_that_is_silent_or_stuck_and_no_other(
    said: dict[str, Any] | None, is_ended: bool
) -> None:
    ended: list[int] = []
    found = None if said is None else sign(**said)

    JobsWatchdog(lambda: found, 60.0, ended.append).look()

    assert ended == ([os.getpid()] if is_ended else [])


def test_one_thread_of_the_store_leaves_the_others_connection_alone(store: JobStore) -> None:
    add(store)
    other = threading.Thread(target=store.close)
    other.start()
    other.join()

    assert store.has_work()


def test_a_worker_without_work_holds_nothing_of_what_prepares_images() -> None:
    asked = "import sys, app.jobs.service; print(sorted({'numpy', 'PIL', 'flask', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_predictor_is_made_with_the_first_image_and_once(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models", "classifier", task="classify")
    deferred = DeferredPredictor(fakes.make_settings(tmp_path / "state", tmp_path / "models"), cast(Any, FakeEngine()))
    made = deferred._predictor
    assert made is None
    outcomes = [
        deferred.predict("classify", [picture(colour=(0, 0, number), kind="PNG")], {}, deadline=time.monotonic() + 60)
        for number in (3, 4)
    ]
    assert [outcome.results[0].answer[0].label for outcome in outcomes] == ["3", "4"]
    made = deferred._predictor
    deferred.predict("classify", [picture(kind="PNG")], {})
    assert deferred._predictor is made is not None
