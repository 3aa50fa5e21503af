"""Shadowing: copies are sent off the caller's way, not too many of them, and what is left out is counted."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from app.inference import images, options
from app.inference.images import Limits
from app.inference.results import Prediction
from app.models.manifests import Manifest
from app.models.shadowing import MAX_IMAGES, MAX_IMAGES_PER_SECOND, MAX_WAITING, Shadowing
from tests import fakes
from tests.fakes import FakeClock, FakeEngine, eventually, picture

LIMITS = Limits(10**7, 10**7, ("JPEG",))
PARAMS = options.parse("classify", {})


class Bench:
    """A shadowing whose time the test tells, between two versions of one size."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.shadowing = Shadowing(lambda data, spec, deadline: images.read(bytes(data), spec, LIMITS), self.clock)
        self.engine = FakeEngine()
        self.active, self.shadow = (fakes.make_manifest(folder, "demo", version) for version in "12")

    def answer(self, count: int = 1) -> None:
        """As after a request of so many images."""
        data = [picture()] * count
        pictures = [images.read(each, self.active.input, LIMITS) for each in data]
        answers = [[Prediction("cone", 0.5)]] * count
        self.shadowing.offer(self.engine, self.shadow, self.active, [PARAMS] * count, pictures, data, answers)

    def sent(self) -> int:
        return len(self.engine.shadowed)

    def dropped(self) -> int:
        return sum(about["dropped"] for *_, about in self.engine.shadowed)


@pytest.fixture
def on(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def test_copies_keep_to_their_rate_and_the_others_are_counted(on: Bench) -> None:
    for number in range(10):
        on.answer()
        # The thread that sends it tells at that moment how many were dropped before.
        eventually(lambda expected=number + 1: on.sent() == expected, "the copy")
        for _ in range(6):
            on.answer()
        on.clock.now += 1.5 / MAX_IMAGES_PER_SECOND

    # Those after the last copy are told with the next one.
    assert on.dropped() == 9 * 6


def test_of_a_request_with_many_images_the_first_are_copied_and_use_up_the_time_of_all(on: Bench) -> None:
    on.answer(MAX_IMAGES + 3)
    on.clock.now += (MAX_IMAGES - 0.5) / MAX_IMAGES_PER_SECOND
    on.answer()
    on.clock.now += 1 / MAX_IMAGES_PER_SECOND
    on.answer()

    eventually(lambda: on.sent() == MAX_IMAGES + 1, "the copies")
    assert on.dropped() == 3 + 1


def test_copies_that_wait_for_a_slow_engine_are_few(on: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, began, send = threading.Event(), threading.Event(), on.engine.shadow

    def hold(*given: Any) -> None:
        began.set()
        assert gate.wait(fakes.PATIENCE_SECONDS)
        send(*given)

    monkeypatch.setattr(on.engine, "shadow", hold)
    on.answer()
    assert began.wait(fakes.PATIENCE_SECONDS)
    for _ in range(20):
        on.clock.now += 1
        on.answer()
    gate.set()

    eventually(lambda: on.sent() == 1 + MAX_WAITING, "the copies")
    assert on.dropped() == 20 - MAX_WAITING


def test_engine_that_fails_ends_nothing(on: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    send, tried = on.engine.shadow, threading.Event()

    def fail(*_: Any) -> None:
        tried.set()
        raise ZeroDivisionError

    monkeypatch.setattr(on.engine, "shadow", fail)
    on.answer()
    assert tried.wait(fakes.PATIENCE_SECONDS)
    monkeypatch.setattr(on.engine, "shadow", send)
    on.clock.now += 1
    on.answer()

    eventually(lambda: on.sent() == 1, "the copy after it")


def test_picture_is_read_again_only_for_another_size(on: Bench, tmp_path: Path) -> None:
    larger: Manifest = fakes.make_manifest(
        tmp_path / "larger", "demo", "3", input={"kind": "crop", "size": 16, "resize_size": 16}
    )
    on.answer()
    on.shadow = larger
    on.clock.now += 1
    on.answer()

    eventually(lambda: on.sent() == 2, "the copies")
    assert [image.shape[0] for _, image, *_ in on.engine.shadowed] == [8, 16]
