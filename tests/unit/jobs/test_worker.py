"""The worker gives each image its result, gives way when there is no room, and gives up what kills."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import (
    CaskError,
    DeadlineExceededError,
    EngineAwayError,
    EngineBusyError,
    ImageUndecodableError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from app.inference.pipeline import ImageResult, Outcome
from app.inference.results import Box, Detection
from app.jobs import pauses
from app.jobs import worker as worker_module
from app.jobs.store import JobStore
from app.jobs.worker import MAX_ATTEMPTS, MAX_CRASHES, Worker
from app.models.manifests import Manifest
from app.supervision import pulse
from tests import fakes
from tests.fakes import FakeClock
from tests.unit.jobs.conftest import add, images


class EngineEndedError(EngineAwayError):
    """As the client raises it when the engine ends in the middle."""

    was_working = True


class FakePredictor:
    """Finds one box in each image, or fails as it is told."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.errors: Iterator[Exception | None] = iter(())
        self.asked: list[bytes] = []

    def predict(self, task: Any, data: Any, params: Any, *, deadline: float | None = None) -> Outcome:
        self.asked += data
        if error := next(self.errors, None):
            raise error
        box = Box(1.23456, 2, 3, 4)
        return Outcome(self.manifest, [ImageResult(64, 48, [Detection("cone", 0.123456789, box)])])


@pytest.fixture
def predictor(tmp_path: Any) -> FakePredictor:
    return FakePredictor(fakes.make_manifest(tmp_path / "models", task="detect"))


@pytest.fixture
def worker(store: JobStore, predictor: FakePredictor, clock: FakeClock) -> Worker:
    return Worker(store, predictor, 2, clock=clock)


def test_result_says_what_the_api_would_say(store: JobStore, worker: Worker, predictor: FakePredictor) -> None:
    job = add(store, 1)
    assert worker.step()
    assert not worker.step()

    assert store.results(job.id) == [
        {
            "number": 1,
            "name": "0.jpg",
            "model": {"name": "demo", "version": "1", "digest": predictor.manifest.digest},
            "width": 64,
            "height": 48,
            "detections": [
                {"label": "cone", "score": 0.12346, "box": {"x_min": 1.23, "y_min": 2, "x_max": 3, "y_max": 4}}
            ],
        }
    ]
    assert images(store) == set()


@pytest.mark.parametrize("kind", [ImageUndecodableError, ModelNotFoundError])
def test_image_that_cannot_be_predicted_has_its_error_and_the_others_go_on(
    store: JobStore,
    worker: Worker,
    predictor: FakePredictor,
    kind: type[CaskError],
    failed_parts: list[tuple[str, str]],
) -> None:
    job = add(store, 2)
    predictor.errors = iter([kind("it is cut off", hint="save it again")])
    while worker.step():
        pass

    first, second = store.results(job.id)
    assert first["error"] == {
        "code": kind.code,
        "status": kind.status,
        "title": kind.title,
        "detail": "it is cut off",
        "hint": "save it again",
    }
    assert "detections" in second
    assert failed_parts == [("item", kind.code)]
    assert store.get(job.id).state == "succeeded"


@pytest.mark.parametrize(
    ("kind", "is_counted"),
    [
        (EngineBusyError, False),
        (EngineAwayError, False),
        (EngineEndedError, True),
        (DeadlineExceededError, True),
    ],
)
def test_trouble_of_the_engine_puts_the_image_back(
    store: JobStore, worker: Worker, predictor: FakePredictor, kind: type[Exception], is_counted: bool
) -> None:
    add(store, 1)
    predictor.errors = iter([kind("not now")])

    assert not worker.step()

    claim = store.claim()
    assert claim
    assert claim.attempt == (2 if is_counted else 1)


@pytest.mark.parametrize(("kind", "attempts"), [(CaskError, MAX_CRASHES), (RuntimeError, MAX_ATTEMPTS)])
def test_image_at_which_a_model_fails_holds_up_its_own_job_alone_and_not_for_ever(
    store: JobStore, worker: Worker, predictor: FakePredictor, clock: FakeClock, kind: type[Exception], attempts: int
) -> None:
    broken, whole = add(store, 1), add(store, 1)
    predictor.errors = iter([kind("The model failed"), None, *[kind("The model failed")] * (attempts - 1)])
    while worker.step():
        pass

    assert [store.get(job.id).state for job in (broken, whole)] == ["running", "succeeded"]
    for _ in range(attempts):
        clock.now += pauses.LONGEST_SECONDS
        worker.step()
    assert store.results(broken.id)[0]["error"]["status"] >= 500
    assert len(predictor.asked) == attempts + 1


def test_each_refusal_doubles_the_pause_and_a_success_ends_it(
    store: JobStore, worker: Worker, predictor: FakePredictor, clock: FakeClock
) -> None:
    add(store, 1)
    busy = EngineBusyError("full", retry_after_seconds=None)
    predictor.errors = iter([busy] * 9)
    pauses = []
    for _ in range(9):
        worker.step()
        pauses.append(worker._resume_at - clock.now)

    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert worker.step()
    assert worker._pause_seconds == 0


def test_pause_is_at_least_what_the_engine_asks_for(
    store: JobStore, worker: Worker, predictor: FakePredictor, clock: FakeClock
) -> None:
    add(store, 1)
    predictor.errors = iter([EngineBusyError("full", retry_after_seconds=7)])
    worker.step()

    assert worker._resume_at - clock.now == 7


def test_no_thread_begins_during_a_pause(
    store: JobStore, worker: Worker, predictor: FakePredictor, clock: FakeClock
) -> None:
    add(store, 1)
    predictor.errors = iter([EngineBusyError("full", retry_after_seconds=7)])
    worker.step()

    clock.now += 6.9
    worker.look()
    assert worker._threads == set()

    clock.now += 0.2
    worker.look()
    fakes.eventually(lambda: not store.list(is_open=True), "the job to end")
    worker.stop(5)


def test_image_that_was_begun_too_often_is_given_up_without_another_try(
    store: JobStore, worker: Worker, predictor: FakePredictor, clock: FakeClock
) -> None:
    job = add(store, 1)
    predictor.errors = iter([EngineEndedError("it ended while it worked")] * 99)
    for _ in range(worker_module.MAX_ATTEMPTS):
        assert not worker.step()
    assert worker.step()

    assert len(predictor.asked) == worker_module.MAX_ATTEMPTS
    assert store.results(job.id)[0]["error"]["code"] == "job_image_abandoned"
    assert store.get(job.id).state == "failed"


def test_callers_who_wait_go_first_for_a_second(
    store: JobStore, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STEP_ASIDE_SECONDS", 0.0)
    crowded = [True] * 3
    asked: list[int] = []

    def is_crowded() -> bool:
        asked.append(len(predictor.asked))
        return bool(crowded and crowded.pop())

    worker = Worker(store, predictor, 1, is_crowded=is_crowded)
    add(store, 1)
    assert worker.step()
    assert asked == [0, 0, 0, 0]

    crowded[:] = [True] * 1000
    asked.clear()
    add(store, 1)
    assert worker.step()
    assert len(asked) == worker_module.MOST_STEPS_ASIDE


def test_threads_live_while_there_is_work(store: JobStore, worker: Worker) -> None:
    worker.look()
    assert worker._threads == set()

    add(store, 5)
    worker.look()
    fakes.eventually(lambda: not store.list(is_open=True), "the job to end")
    fakes.eventually(lambda: not worker._threads, "the threads to end")
    assert worker.busy_seconds == 0


def test_threads_that_wait_for_a_core_are_no_loops(
    store: JobStore, worker: Worker, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run behind all others; an image that lasts too long is noticed by its own deadline."""
    exempt = []
    predict = predictor.predict
    monkeypatch.setattr(
        predictor,
        "predict",
        lambda *given, **named: exempt.append(pulse.heat.is_exempt()) or predict(*given, **named),
    )

    add(store, 1)
    worker.look()
    fakes.eventually(lambda: not store.list(is_open=True), "the job to end")

    assert exempt == [True]


def test_job_that_is_removed_in_the_middle_does_not_disturb(
    store: JobStore, worker: Worker, predictor: FakePredictor, clock: FakeClock
) -> None:
    job = add(store, 1)
    clock.now += 1
    other = add(store, 2)

    class Removing(FakePredictor):
        def predict(self, *args: Any, **named: Any) -> Outcome:
            if not self.asked:
                store.remove(job.id)
            return super().predict(*args, **named)

    worker._predictor = Removing(predictor.manifest)
    while worker.step():
        pass

    assert store.get(other.id).state == "succeeded"
    assert [each.id for each in store.list()] == [other.id]


# ── one job's trouble is not another's ───────────────────────────────────────────────────────────────────────────────


def test_a_job_whose_model_is_not_ready_holds_up_no_other(
    store: JobStore, predictor: FakePredictor, worker: Worker, clock: FakeClock
) -> None:
    stuck, free = add(store, 1), add(store, 2)
    predictor.errors = iter([ModelNotReadyError("it failed to load")])
    while worker.step():
        pass

    assert store.get(free.id).state == "succeeded"
    assert store.get(stuck.id).is_open
    assert not worker._has_work()
    clock.now += pauses.FIRST_SECONDS
    assert worker._has_work()


def test_an_image_whose_model_never_gets_ready_has_that_as_its_answer(
    store: JobStore, predictor: FakePredictor, worker: Worker, clock: FakeClock
) -> None:
    job = add(store, 2)
    predictor.errors = iter([ModelNotReadyError("it failed to load")] * 1000)
    for _ in range(1000):
        while worker.step():
            pass
        if not store.get(job.id).is_open:
            break
        clock.now += pauses.LONGEST_SECONDS

    assert store.get(job.id).state == "failed"
    assert {row["error"]["code"] for row in store.results(job.id)} == {"model_not_ready"}
    assert clock.now - 1_000_000 >= pauses.PATIENCE_SECONDS


def test_an_engine_that_is_away_for_long_gives_no_image_up(
    store: JobStore, predictor: FakePredictor, worker: Worker, clock: FakeClock
) -> None:
    job = add(store, 1)
    predictor.errors = iter([EngineAwayError("its process has ended")] * 50)
    for _ in range(50):
        assert not worker.step()
        clock.now += 30

    assert worker.step()
    assert store.get(job.id).failed == 0
