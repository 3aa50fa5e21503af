"""A model that computes in another process has a thread and a queue of its own: others never wait for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.engine.batcher import Limits, Work
from app.engine.worker import Workers
from app.errors import EngineAwayError
from app.models.manifests import Manifest
from tests import fakes
from tests.fakes import FakeModel, eventually, pixels
from tests.unit.engine.test_worker import Replies


class ApartModel(FakeModel):
    """Waits for its gate, as for a process that hangs."""

    is_apart = True

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.is_closed = threading.Event()

    def predict(self, images: Sequence[Any], options: Sequence[Any]) -> list[Any]:
        assert self.gate.wait(fakes.PATIENCE_SECONDS)
        return [b"{}" for _ in images]

    def close(self) -> None:
        self.is_closed.set()


class Room:
    """Workers of one thread with an ordinary model and one apart, and what was answered."""

    def __init__(self, folder: Path) -> None:
        self.ordinary = FakeModel(fakes.make_manifest(folder, "ordinary"))
        self.apart = ApartModel(fakes.make_manifest(folder, "apart"))
        models = {model.manifest.key: model for model in (self.ordinary, self.apart)}
        self.workers = Workers(
            [model.manifest for model in models.values()],
            lambda manifest: models[manifest.key],
            threads=1,
            max_queue_size=8,
            limits=lambda _: Limits(),
        )
        self.workers.start()
        eventually(self.workers.is_started.is_set)
        self.replies = Replies()

    def submit(self, number: int, model: FakeModel) -> None:
        now = self.workers.clock()
        work = Work(model.manifest.key, (4, 4), now, now + 1e6, pixels(number, 4, 4))
        work.options, work.reply = model.manifest.default_options(), self.replies.of(number)
        self.workers.submit(work)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.apart.gate.set()
    made.workers.drain(fakes.PATIENCE_SECONDS)


def test_others_are_answered_while_it_hangs(room: Room) -> None:
    room.apart.gate.clear()
    for number in range(3):
        room.submit(number, room.apart)
    room.submit(10, room.ordinary)

    assert set(room.replies.wait(1)) == {10}
    room.apart.gate.set()
    assert {number: reply.answer for number, reply in room.replies.wait(4).items() if number < 10} == dict.fromkeys(
        range(3), b"{}"
    )


def test_a_hang_of_it_is_no_hang_of_the_engine(room: Room) -> None:
    room.apart.gate.clear()
    room.submit(0, room.apart)

    assert room.workers.stuck_seconds() == 0.0
    assert room.workers.status()["busy_workers"] == 0


def test_it_is_let_go_of_once_it_has_answered_and_its_process_ends(room: Room) -> None:
    room.apart.gate.clear()
    room.submit(0, room.apart)
    key = room.apart.manifest.key

    assert not room.workers.release(key)
    room.apart.gate.set()
    room.replies.wait(1)
    eventually(lambda: room.workers.release(key))
    assert room.apart.is_closed.is_set()
    assert key not in room.workers.slots


def test_stopping_waits_for_it_and_ends_its_process(room: Room) -> None:
    room.submit(0, room.apart)

    assert room.workers.drain(fakes.PATIENCE_SECONDS)
    assert set(room.replies.wait(1)) == {0}
    assert room.apart.is_closed.is_set()
    with pytest.raises(EngineAwayError):
        room.submit(1, room.apart)


def test_one_that_is_loaded_again_answers_before_the_old_one_ends(room: Room) -> None:
    room.apart.gate.clear()
    room.submit(0, room.apart)
    room.workers.hold(room.apart.manifest, is_proven=False)
    room.apart.gate.set()

    assert room.replies.wait(1)[0].answer == b"{}"
    eventually(room.apart.is_closed.is_set)
