"""Small models load first, so that a slow one holds up nobody but itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.engine.batcher import Limits
from app.engine.worker import Workers
from app.models import manifests
from app.supervision import pulse
from tests import fakes
from tests.fakes import PATIENCE_SECONDS, FakeModel


def test_small_models_are_ready_before_large_ones(tmp_path: Path) -> None:
    sizes, order = {"large": 3000, "missing": None, "small": 10}, []
    for name, size in sizes.items():
        folder = fakes.write_model(tmp_path, name)
        if size is not None:
            (folder / "model.safetensors").write_bytes(bytes(size))
    chosen = [manifests.read(tmp_path / name / "1") for name in sizes]

    def load(manifest: manifests.Manifest) -> FakeModel:
        order.append(manifest.name)
        return FakeModel(manifest)

    workers = Workers(chosen, load, threads=1, max_queue_size=8, limits=lambda _: Limits())
    workers.start()
    assert workers.is_started.wait(PATIENCE_SECONDS)
    workers.drain(0)

    assert order == ["missing", "small", "large"]


def test_an_engine_that_is_ready_no_longer_says_that_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.write_model(tmp_path, "only")
    seen: list[tuple[str, bool]] = []
    workers = Workers(
        [manifests.read(tmp_path / "only" / "1")], FakeModel, threads=1, max_queue_size=8, limits=lambda _: Limits()
    )
    [slot] = workers.slots.values()

    def beat(_: float) -> None:
        # Another test may have begun the process's own beat, which goes on.
        if threading.current_thread() is not pulse._thread:
            seen.append((slot.state, pulse._is_loading()))

    monkeypatch.setattr(pulse, "beat", beat)

    workers.start()
    assert workers.is_started.wait(PATIENCE_SECONDS)
    workers.drain(0)

    assert seen == [("loading", True), ("loading", False)]
    assert slot.state == "ready"
