"""What contract tests share: the whole app with a fake engine, and a caller of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import fakes
from tests.fakes import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that answers."""
    return FakeEngine()


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Iterator[Flask]:
    """The real app over a model store of its own."""
    with fakes.logging_kept():
        yield fakes.make_app(tmp_path, engine)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Sends requests as a caller does, to the host localhost."""
    return app.test_client()
