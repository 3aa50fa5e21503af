"""What unit tests share: a model's manifest and a running engine with a fake model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.models.manifests import Manifest
from app.plugins.manifest import PARENT
from app.telemetry import metrics
from tests import fakes
from tests.fakes import FakeEngine, RunningEngine


@pytest.fixture(autouse=True)
def kept_logging() -> Iterator[None]:
    """No test changes how another one logs."""
    with fakes.logging_kept():
        yield


@pytest.fixture(autouse=True)
def no_plugins_of_others() -> Iterator[None]:
    """No plugin of one test can be imported by that of another one."""
    before = set(sys.modules)
    yield
    for name in [name for name in sys.modules.keys() - before if name.startswith(f"{PARENT}.")]:
        del sys.modules[name]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A classifier's."""
    return fakes.make_manifest(tmp_path / "models")


@pytest.fixture
def running(tmp_path: Path, manifest: Manifest) -> Iterator[RunningEngine]:
    """A real server with one worker and a fake classifier, and a client of it."""
    with fakes.running_engine(tmp_path / "engine.sock", [manifest]) as engine:
        yield engine


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that answers."""
    return FakeEngine()


@pytest.fixture
def failed_parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Part and code of each failure inside an answer that is counted from now on."""
    found: list[tuple[str, str]] = []
    count = metrics.FAILED_PARTS.add

    def add(amount: float = 1, **labels: str) -> None:
        count(amount, **labels)
        found.append((labels["part"], labels["code"]))

    monkeypatch.setattr(metrics.FAILED_PARTS, "add", add)
    return found
