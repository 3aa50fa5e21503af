"""The workers: batches form while they are busy, late work is not done, and no failure stops them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engine.batcher import Limits, Work
from app.engine.worker import Reply, Workers
from app.errors import (
    CaskError,
    DeadlineExceededError,
    EngineAwayError,
    EngineBusyError,
    GoldenCheckError,
    GpuOutOfMemoryError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from app.inference.results import Answer, ClassifyOptions, Options, Prediction
from app.models.manifests import Manifest
from tests import fakes
from tests.fakes import PATIENCE_SECONDS, FakeClock, FakeModel, eventually, pixels

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Replies:
    """Where the replies of a test's works arrive, in order."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.found: list[tuple[int, Reply]] = []

    def of(self, number: int) -> Callable[[Reply], None]:
        def reply(found: Reply) -> None:
            with self._condition:
                self.found.append((number, found))
                self._condition.notify_all()

        return reply

    def wait(self, count: int) -> dict[int, Reply]:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.found) >= count, PATIENCE_SECONDS), self.found
            assert len(self.found) == count
            return dict(self.found)


class Bench:
    """Workers with FakeModels, and their replies."""

    def __init__(self, workers: Workers, models: dict[str, FakeModel], clock: Callable[[], float]) -> None:
        self.workers = workers
        self.models = models
        self.model = next(iter(models.values()))
        self.clock = clock
        self.replies = Replies()

    def work(self, number: int, seconds: float = 1e6, key: str = "", side: int = 4, **changes: Any) -> Work:
        now = self.clock()
        made = Work(key or self.model.manifest.key, (side, side), now, now + seconds, pixels(number, side, side))
        made.options, made.reply = ClassifyOptions(), self.replies.of(number)
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    def submit(self, *numbers: int, **how: Any) -> list[Work]:
        works = [self.work(number, **how) for number in numbers]
        for each in works:
            self.workers.submit(each)
        return works

    def hold(self, number: int = 99) -> None:
        """Keep the model busy until its gate opens."""
        self.model.gate.clear()
        self.submit(number)
        self.model.wait_until_busy()

    def release(self) -> None:
        self.model.gate.set()


@contextmanager
def bench(
    manifests: list[Manifest],
    *,
    threads: int = 1,
    clock: Callable[[], float] | None = None,
    limits: Limits | None = None,
    max_queue_size: int = 64,
    prepare: Callable[[dict[str, FakeModel]], None] = lambda models: None,
) -> Iterator[Bench]:
    models = {each.key: FakeModel(each) for each in manifests}
    prepare(models)
    clock = clock or FakeClock()
    workers = Workers(
        manifests,
        lambda manifest: models[manifest.key],
        threads=threads,
        max_queue_size=max_queue_size,
        limits=lambda _: limits or Limits(),
        clock=clock,
    )
    workers.start()
    eventually(lambda: all(slot.state != "loading" for slot in workers.slots.values()))
    try:
        yield Bench(workers, models, clock)
    finally:
        for model in models.values():
            model.gate.set()
        workers.drain(0)


def labels(replies: dict[int, Reply]) -> dict[int, str]:
    return {number: reply.answer[0].label for number, reply in replies.items() if reply.answer}


def errors(replies: dict[int, Reply]) -> dict[int, type]:
    return {number: type(reply.error) for number, reply in replies.items() if reply.error}


def test_each_work_gets_the_answer_for_its_own_image(manifest: Manifest) -> None:
    with bench([manifest], threads=3) as on:
        on.submit(*range(40))

        replies = on.replies.wait(40)

    assert labels(replies) == {number: str(number) for number in range(40)}


def test_batch_forms_while_the_model_is_busy(manifest: Manifest) -> None:
    with bench([manifest], limits=Limits(4)) as on:
        on.hold()
        on.submit(1, 2, 3, 4, 5)
        on.release()

        replies = on.replies.wait(6)

    assert on.model.batches == [1, 4, 1]
    assert [replies[number].batch_size for number in (99, 1, 5)] == [1, 4, 1]


def test_reply_says_how_long_the_work_waited(manifest: Manifest) -> None:
    clock = FakeClock()
    with bench([manifest], clock=clock) as on:
        on.hold()
        on.submit(1)
        clock.now += 0.25
        on.release()

        replies = on.replies.wait(2)

    assert (replies[99].predict_ms, replies[1].queue_ms, replies[1].predict_ms) == (250, 250, 0)


def test_late_work_is_refused_and_not_predicted(manifest: Manifest) -> None:
    clock = FakeClock()
    with bench([manifest], clock=clock) as on:
        on.hold()
        on.submit(1, seconds=5.0)
        on.submit(2, seconds=6.0)
        clock.now += 5.0
        on.release()

        replies = on.replies.wait(3)

    assert errors(replies) == {1: DeadlineExceededError}
    assert on.model.seen == ["99", "2"]


def test_cancelled_work_is_not_predicted(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.hold()
        given_up, _ = on.submit(1, 2)
        on.workers.cancel(given_up)
        on.release()

        on.replies.wait(3)

    assert on.model.seen == ["99", "2"]


def test_cancelled_work_gives_its_place_in_a_full_queue_to_others(manifest: Manifest) -> None:
    with bench([manifest], max_queue_size=2) as on:
        on.hold()
        given_up, _ = on.submit(1, 2)
        with pytest.raises(EngineBusyError):
            on.submit(3)
        on.workers.cancel(given_up)

        on.submit(4)
        on.release()

        assert labels(on.replies.wait(4)).keys() == {99, 2, 4}


def test_model_that_fails_refuses_its_whole_batch_and_answers_the_next(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.hold()
        on.submit(1, 2)
        on.model.predict_error = RuntimeError("out of memory")
        on.release()
        failed = on.replies.wait(3)
        on.model.predict_error = None
        on.submit(4)

        replies = on.replies.wait(4)

    assert errors(failed) == {99: CaskError, 1: CaskError, 2: CaskError}
    assert failed[1].error and "RuntimeError" in failed[1].error.message
    assert labels(replies) == {4: "4"}


def failing_at(model: FakeModel, bad: set[str]) -> list[int]:
    """Let a model fail at each batch that holds one of these images. The sizes of all batches from now on."""
    sizes: list[int] = []

    def predict(images: Any, options: Any) -> list[Answer]:
        sizes.append(len(images))
        if any(fakes.name_of(image) in bad for image in images):
            raise RuntimeError("not this image")
        return [[Prediction(fakes.name_of(image), 1.0)] for image in images]

    model.predict = predict  # type: ignore[method-assign]
    return sizes


def test_image_at_which_a_model_fails_costs_its_batch_once_more_and_the_next_ones_little(manifest: Manifest) -> None:
    with bench([manifest], limits=Limits(8)) as on:
        on.hold()
        on.submit(*range(1, 33))
        sizes = failing_at(on.model, {"3"})
        on.release()
        replies = on.replies.wait(33)
        on.submit(50)
        after = on.replies.wait(34)

    assert errors(replies) == {3: CaskError}
    assert labels(replies).keys() == {99, *range(1, 33)} - {3}
    # Again one by one, then halves until four of them were answered.
    assert sizes[:13] == [8, *[1] * 8, 4, 4, 4, 4]
    assert labels(after)[50] == "50"


def test_model_that_fails_again_and_again_is_asked_image_by_image_until_it_answers(manifest: Manifest) -> None:
    with bench([manifest], limits=Limits(8)) as on:
        on.hold()
        on.submit(*range(1, 65))
        sizes = failing_at(on.model, {str(number) for number in range(1, 17)})
        on.release()
        replies = on.replies.wait(65)

    assert errors(replies).keys() == set(range(1, 17))
    assert labels(replies).keys() == {99, *range(17, 65)}
    bad = [8, *[1] * 8, 4, *[1] * 4, 2, 1, 1, 1, 1]
    # Four answered, then twice as many at once, and at last as many as usual.
    assert sizes == [*bad, *[1] * 4, *[2] * 4, *[4] * 4, *[8] * 2, 4]


def test_work_that_nobody_waits_for_is_not_computed_once_more(manifest: Manifest) -> None:
    clock = FakeClock()
    with bench([manifest], clock=clock, limits=Limits(8)) as on:
        on.hold()
        on.submit(1, 2, seconds=5)
        on.submit(3)
        sizes = failing_at(on.model, {"3"})
        inner = on.model.predict

        def slow(images: Any, options: Any) -> list[Answer]:
            clock.now += 6
            return inner(images, options)

        on.model.predict = slow  # type: ignore[method-assign]
        on.release()
        replies = on.replies.wait(4)

    assert sizes == [3, 1]
    assert errors(replies) == {1: DeadlineExceededError, 2: DeadlineExceededError, 3: CaskError}


def test_model_with_code_that_says_which_item_failed_gets_smaller_batches_too(manifest: Manifest) -> None:
    with bench([manifest], limits=Limits(8)) as on:
        on.hold()
        on.submit(*range(1, 17))
        sizes: list[int] = []

        def predict(images: Any, options: Any) -> list[Any]:
            sizes.append(len(images))
            return [CaskError("The model failed.") if len(sizes) == 1 else [Prediction("x", 1.0)] for _ in images]

        on.model.predict = predict  # type: ignore[method-assign]
        on.release()
        replies = on.replies.wait(17)

    assert sizes == [8, 4, 4]
    assert errors(replies).keys() == set(range(1, 9))


def test_error_that_the_model_knows_by_name_reaches_the_caller(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.model.predict_error = EngineBusyError("No memory on the device.", retry_after_seconds=7.0)
        on.submit(1)

        reply = on.replies.wait(1)[1]

    assert reply.error is on.model.predict_error


def test_model_that_answers_too_few_images_refuses_its_batch_and_the_thread_lives_on(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.model.predict = lambda images, options: []  # type: ignore[method-assign]
        on.submit(1)
        failed = on.replies.wait(1)
        del on.model.predict
        on.submit(2)

        replies = on.replies.wait(2)

    assert errors(failed) == {1: CaskError}
    assert labels(replies) == {2: "2"}


def test_reply_that_fails_harms_no_other_work_of_its_batch(manifest: Manifest) -> None:
    def fail(_: Reply) -> None:
        raise RuntimeError("the connection's code is wrong")

    with bench([manifest]) as on:
        on.hold()
        on.workers.submit(on.work(1, reply=fail))
        on.submit(2)
        on.release()

        assert labels(on.replies.wait(2)) == {99: "99", 2: "2"}


@pytest.mark.parametrize("stage", ["warm_up_error", "golden_error"])
def test_model_that_fails_to_load_is_not_served_and_says_why(tmp_path: Path, stage: str) -> None:
    bad, good = (fakes.make_manifest(tmp_path, name) for name in ("bad", "good"))

    def prepare(models: dict[str, FakeModel]) -> None:
        setattr(models[bad.key], stage, GoldenCheckError("Image 1 differs by 0.4.", hint="Retrain."))

    with bench([bad, good], prepare=prepare) as on:
        on.submit(1, key=good.key)
        with pytest.raises(ModelNotReadyError, match=r"bad@1 failed to load") as caught:
            on.submit(2, key=bad.key)
        rows = {row["name"]: (row["state"], row["warm"], row["error"]) for row in on.workers.status()["models"]}

        assert labels(on.replies.wait(1)) == {1: "1"}
    assert caught.value.retry_after_seconds == 30.0
    assert rows == {"bad": ("failed", False, "Image 1 differs by 0.4."), "good": ("ready", True, "")}


def test_model_that_fails_in_an_unexpected_way_names_the_error(manifest: Manifest) -> None:
    def prepare(models: dict[str, FakeModel]) -> None:
        models[manifest.key].warm_up_error = ZeroDivisionError("division by zero")

    with bench([manifest], prepare=prepare) as on:
        assert on.workers.status()["models"][0]["error"] == "ZeroDivisionError: division by zero"


def test_model_that_is_still_loading_is_not_asked(manifest: Manifest) -> None:
    gate = threading.Event()

    def load(_: Manifest) -> FakeModel:
        assert gate.wait(PATIENCE_SECONDS)
        raise ModelLoadError("never mind")

    workers = Workers([manifest], load, threads=1, max_queue_size=1, limits=lambda _: Limits(), clock=FakeClock())
    workers.start()

    with pytest.raises(ModelNotReadyError, match="still loading"):
        workers.submit(Work(manifest.key, (4, 4), 0.0, 1e9))

    gate.set()
    workers.drain(0)


def test_unknown_model_is_refused(manifest: Manifest) -> None:
    with bench([manifest]) as on, pytest.raises(ModelNotFoundError, match="does not hold nobody@9"):
        on.submit(1, key="nobody@9")


def test_drain_finishes_what_waits_and_refuses_what_comes(manifest: Manifest) -> None:
    # The delay must not be waited for: nobody else can join any more.
    with bench([manifest], limits=Limits(2, max_queue_delay_ms=60_000)) as on:
        on.model.gate.clear()
        on.submit(1, 2)
        on.model.wait_until_busy()
        on.submit(3)
        done: list[bool] = []
        draining = threading.Thread(target=lambda: done.append(on.workers.drain(PATIENCE_SECONDS)))
        draining.start()
        eventually(lambda: on.workers.status()["is_stopping"])
        with pytest.raises(EngineAwayError, match="stopping"):
            on.submit(4)
        on.release()
        draining.join(PATIENCE_SECONDS)

        assert done == [True]
        assert labels(on.replies.wait(3)) == {1: "1", 2: "2", 3: "3"}


def test_drain_without_time_refuses_what_waits_and_says_so(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.hold()
        on.submit(1)

        is_done = on.workers.drain(0)

        assert not is_done
        assert errors(on.replies.wait(1)) == {1: EngineAwayError}


def test_threads_end_when_drained(manifest: Manifest) -> None:
    with bench([manifest], threads=3) as on:
        threads = list(on.workers._threads)

        assert on.workers.drain(PATIENCE_SECONDS)

    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)


def test_idle_thread_takes_over_the_wait_for_a_batch_that_is_not_yet_due(manifest: Manifest, tmp_path: Path) -> None:
    """The thread that waits for a delay may be called away by a full batch; another must then watch the clock."""
    slow = fakes.make_manifest(tmp_path / "slow", "slow")
    with bench([slow, manifest], threads=2, clock=time.monotonic, limits=Limits(2, max_queue_delay_ms=30)) as on:
        on.model.gate.clear()
        on.submit(1, key=manifest.key)
        on.submit(2, 3, key=slow.key)
        on.model.wait_until_busy()

        assert labels(on.replies.wait(1)) == {1: "1"}

        on.release()
        on.replies.wait(3)


def test_status_tells_how_long_a_batch_has_taken(manifest: Manifest) -> None:
    clock = FakeClock()
    with bench([manifest], clock=clock) as on:
        on.hold()
        on.submit(1)
        clock.now += 61.5

        status = on.workers.status()

    assert (status["waiting"], status["busy_workers"], status["oldest_batch_seconds"]) == (1, 1, 61.5)
    assert (status["images_total"], status["batches_total"]) == (1, 1)


# ── work that nobody waits for ────────────────────────────────────────────────────────────────────────────────────────


def test_background_work_is_done_while_the_engine_is_idle(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        assert on.workers.offer(on.work(1))

        assert labels(on.replies.wait(1)) == {1: "1"}
        assert on.workers.status()["images_total"] == 0


def test_background_work_waits_until_the_callers_are_answered(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.hold()
        assert on.workers.offer(on.work(1))
        on.submit(2)
        on.release()

        on.replies.wait(3)

    assert on.model.seen == ["99", "2", "1"]


def test_background_work_leaves_a_thread_free_for_callers(manifest: Manifest) -> None:
    with bench([manifest], threads=2) as on:
        on.hold()
        assert on.workers.offer(on.work(1))
        on.submit(2)
        on.model.wait_until_busy()

        assert on.model.seen == ["99", "2"]

        on.release()
        on.replies.wait(3)


def test_background_work_is_refused_while_callers_wait(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.hold()
        on.submit(1)

        assert not on.workers.offer(on.work(2))

        on.release()
        on.replies.wait(2)


def test_background_work_is_bounded_and_takes_no_callers_place(manifest: Manifest) -> None:
    with bench([manifest], max_queue_size=2) as on:
        on.hold()
        taken = [on.workers.offer(on.work(number)) for number in range(100, 140)]
        on.submit(1, 2)
        on.release()

        replies = on.replies.wait(3 + sum(taken))

    assert 0 < sum(taken) < 40
    assert labels(replies).keys() >= {99, 1, 2}
    assert on.model.seen[:3] == ["99", "1", "2"]


def test_background_work_that_got_late_is_not_done(manifest: Manifest) -> None:
    clock = FakeClock()
    with bench([manifest], clock=clock) as on:
        on.hold()
        on.workers.offer(on.work(1, seconds=5.0))
        clock.now += 5.0
        on.release()

        assert errors(on.replies.wait(2)) == {1: DeadlineExceededError}
    assert on.model.seen == ["99"]


def test_background_work_for_a_version_that_is_not_there_is_refused(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        assert not on.workers.offer(on.work(1, key="nobody@9"))


def test_version_with_background_work_is_not_released(manifest: Manifest) -> None:
    with bench([manifest]) as on:
        on.hold()
        on.workers.offer(on.work(1))

        assert not on.workers.release(manifest.key)

        on.release()
        on.replies.wait(2)


def test_an_image_without_an_answer_of_its_own_leaves_the_others_theirs(manifest: Manifest) -> None:
    def answer(image: np.ndarray, requested: Options) -> Answer:
        if fakes.name_of(image) == "2":
            return refusal  # type: ignore[return-value]
        return [Prediction(fakes.name_of(image), 1.0)]

    refusal = GpuOutOfMemoryError("cuda:0 has no memory left for one image.")
    with bench([manifest], limits=Limits(4)) as on:
        on.model.answer = answer
        on.hold()
        on.submit(1, 2, 3)
        on.release()

        replies = on.replies.wait(4)

    assert on.model.batches == [1, 3]
    assert replies.pop(2).error is refusal
    assert labels(replies) == {1: "1", 3: "3", 99: "99"}


def test_a_model_says_what_suits_its_device_once_it_is_loaded(manifest: Manifest) -> None:
    def prepare(models: dict[str, FakeModel]) -> None:
        models[manifest.key].best_batch_size = 3

    with bench([manifest], limits=Limits(8), prepare=prepare) as on:
        on.hold()
        on.submit(*range(6))
        on.release()
        on.replies.wait(7)

    assert on.model.batches == [1, 3, 3]


def test_status_says_on_which_device_a_model_is_computed(manifest: Manifest) -> None:
    def prepare(models: dict[str, FakeModel]) -> None:
        models[manifest.key].device = "cuda:1"

    with bench([manifest], prepare=prepare) as on:
        assert [row["device"] for row in on.workers.status()["models"]] == ["cuda:1"]


@pytest.mark.parametrize("hanging", ["first", "second", "third"])
def test_a_model_that_hangs_while_it_loads_holds_up_no_other(tmp_path: Path, hanging: str) -> None:
    made = [fakes.make_manifest(tmp_path, name) for name in ("first", "second", "third")]
    release = threading.Event()

    def load(manifest: Manifest) -> FakeModel:
        assert manifest.name != hanging or release.wait(PATIENCE_SECONDS)
        return FakeModel(manifest)

    workers = Workers(made, load, threads=1, max_queue_size=8, limits=lambda _: Limits(), load_patience_seconds=0.05)
    workers.start()
    try:
        others = {"first", "second", "third"} - {hanging}
        eventually(lambda: {slot.manifest.name for slot in workers.slots.values() if slot.state == "ready"} == others)
        # Commands and builds do not wait for it, either.
        assert workers.is_started.wait(PATIENCE_SECONDS)
        release.set()
        eventually(lambda: all(slot.state == "ready" for slot in workers.slots.values()))
    finally:
        release.set()
        workers.drain(0)
