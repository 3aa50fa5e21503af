"""The worker's process: one at a time, a sign of life each second, and tidied up now and then."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from app.jobs.service import TURN_SECONDS, DeferredPredictor, Service
from app.jobs.store import JobStore
from app.jobs.webhooks import Messenger
from app.jobs.worker import IMAGE_SECONDS, Worker
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
    return Service(store, cast(Worker, IdleWorker()), Messenger(store, settings), clock)


def test_round_that_does_not_end_is_stuck(service: Service, clock: FakeClock) -> None:
    service.turn()
    clock.now += TURN_SECONDS
    assert service.stuck_seconds() == 0

    clock.now += 5
    assert service.stuck_seconds() == 5


def test_image_may_take_its_time_and_no_longer(service: Service) -> None:
    worker = cast(IdleWorker, service._worker)
    worker.busy_seconds = IMAGE_SECONDS
    assert service.stuck_seconds() == 0

    worker.busy_seconds = IMAGE_SECONDS + 5
    assert service.stuck_seconds() == 5


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
