"""Self-tests while a model serves, and the reference made of its samples."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engine.drift import LEAST_IMAGES
from app.engine.monitor import ModelMonitor
from app.errors import GoldenCheckError
from app.inference.results import ClassifyOptions
from app.models.manifests import Manifest
from tests import fakes
from tests.fakes import RunningEngine


class Samples:
    """So many sample pictures; counts how often they were read."""

    def __init__(self, count: int) -> None:
        self.count, self.reads = count, 0

    def __call__(self, manifest: Manifest) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        self.reads += 1
        return iter([(fakes.pixels(number), (640, 480)) for number in range(self.count)])


def inspector(running: RunningEngine, folder: Path, samples: Samples, seconds: float = 60) -> ModelMonitor:
    return ModelMonitor(running.workers, folder, samples, seconds)


def ask(running: RunningEngine, count: int) -> None:
    deadline = time.monotonic() + fakes.PATIENCE_SECONDS
    for number in range(count):
        image = [fakes.pixels(number)]
        running.client.predict(running.model.manifest, image, [ClassifyOptions()], deadline, [(640, 480)])


def row(running: RunningEngine) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = running.client.status()["models"][0]
    return found


def test_loading_is_the_first_self_test(running: RunningEngine) -> None:
    assert row(running)["golden"]["is_passed"] is True
    assert abs(float(str(row(running)["golden"]["at"])) - time.time()) < 60


def test_a_model_that_gives_other_answers_is_told_and_goes_on(running: RunningEngine, tmp_path: Path) -> None:
    looking, now = inspector(running, tmp_path, Samples(0)), time.time()
    running.model.golden_error = GoldenCheckError("a score differs by 0.3.")

    looking.look(now + 30)
    assert row(running)["golden"]["is_passed"] is True
    looking.look(now + 90)

    assert row(running)["golden"] == {
        "at": pytest.approx(now + 90, abs=1),
        "is_passed": False,
        "error": "a score differs by 0.3.",
    }
    ask(running, 1)
    running.model.golden_error = None
    looking.look(now + 180)
    assert row(running)["golden"]["is_passed"] is True


def test_a_clock_that_was_set_back_puts_no_self_test_off(running: RunningEngine, tmp_path: Path) -> None:
    looking, now = inspector(running, tmp_path, Samples(0)), time.time()
    running.model.golden_error = GoldenCheckError("a score differs by 0.3.")

    looking.look(now - 7200)

    assert row(running)["golden"]["is_passed"] is False


def test_no_self_test_is_made_where_none_is_wished(running: RunningEngine, tmp_path: Path) -> None:
    running.model.golden_error = GoldenCheckError("different")

    inspector(running, tmp_path, Samples(0), seconds=0).look(time.time() + 1e6)

    assert row(running)["golden"]["is_passed"] is True


def test_the_reference_is_made_when_there_is_something_to_compare_and_kept(
    running: RunningEngine, tmp_path: Path
) -> None:
    samples = Samples(60)
    looking = inspector(running, tmp_path, samples)

    ask(running, LEAST_IMAGES - 1)
    looking.look()
    assert samples.reads == 0
    ask(running, 1)
    fakes.eventually(lambda: row(running)["drift"]["images"] == LEAST_IMAGES, "the last image to be counted")
    looking.look()
    looking.look()

    drift = row(running)["drift"]
    assert samples.reads == 1
    assert (drift["images"], drift["reference_images"]) == (LEAST_IMAGES, 60)
    assert len(list((tmp_path / "drift").iterdir())) == 1
    running.workers.slots[running.model.manifest.key].watch.reference = None
    inspector(running, tmp_path, samples).look()
    assert row(running)["drift"]["reference_images"] == 60
    assert samples.reads == 1


def test_the_reference_takes_a_tenth_of_a_worker_at_most(
    running: RunningEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime's threads compute the samples beside callers' work, and as fast."""
    clock, pauses = fakes.FakeClock(), list[float]()
    looking = ModelMonitor(running.workers, tmp_path, Samples(3), 60, clock)
    ask(running, LEAST_IMAGES)
    fakes.eventually(lambda: row(running)["drift"]["images"] == LEAST_IMAGES, "the last image to be counted")
    predict = running.model.predict

    def slow(*given: Any) -> Any:
        clock.now += 0.08
        return predict(*given)

    monkeypatch.setattr(running.model, "predict", slow)
    monkeypatch.setattr(looking._is_stopped, "wait", pauses.append)
    looking.look()

    assert pauses == pytest.approx([0.72] * 3)
    assert row(running)["drift"]["reference_images"] == 3


def test_a_model_without_samples_is_asked_for_them_once(running: RunningEngine, tmp_path: Path) -> None:
    samples = Samples(0)
    looking = inspector(running, tmp_path, samples)
    ask(running, LEAST_IMAGES)
    fakes.eventually(lambda: row(running)["drift"]["images"] == LEAST_IMAGES, "the last image to be counted")

    looking.look()
    looking.look()

    assert samples.reads == 1
    assert row(running)["drift"]["reference_images"] == 0
