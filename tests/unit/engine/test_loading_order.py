"""Small models load first, so that a slow one holds up nobody but itself."""

from __future__ import annotations

from pathlib import Path

from app.engine.batcher import Limits
from app.engine.worker import Workers
from app.models import manifests
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
