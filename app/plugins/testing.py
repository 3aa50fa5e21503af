"""Fixtures for a plugin's own tests: ``make plugin-test NAME=claims`` runs them with the models of the store."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import config
from app.factory import create_app
from app.plugins import request_watch
from app.plugins.request_watch import RequestWatch

READY_SECONDS = 120.0
PERIOD_SECONDS = 0.05
# Says at which step of a test it is.
OF_PYTEST = frozenset({"os.environ['PYTEST_CURRENT_TEST']"})


@pytest.fixture(scope="session")
def app() -> Iterator[Flask]:
    """Cask with the chosen plugins, an engine in this process, no tokens and a state folder of its own."""
    with tempfile.TemporaryDirectory(prefix="cask-") as folder:
        changes = {
            "state_dir": Path(folder),
            "engine_mode": "in_process",
            "authentication": "off",
            "log_level": "error",
        }
        made = create_app(config.load().model_copy(update={**changes, "jobs": "off", "plugins_on_error": "stop"}))
        _wait_ready(made)
        yield made


@pytest.fixture(autouse=True)
def _shared_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """Red where a view changed what Cask and all plugins share; asked after the test's own fixtures have gone."""
    watch = RequestWatch(request.getfixturevalue("app")) if "app" in request.fixturenames else None
    yield
    changed = [name for name in watch.changes() if name not in OF_PYTEST] if watch else []
    if changed:
        pytest.fail("\n".join(request_watch.words(name, "this test") for name in changed), pytrace=False)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Asks the app: ``client.get("/claims/page")``."""
    return app.test_client()


@pytest.fixture
def photo() -> tuple[io.BytesIO, str]:
    """A photograph to send: ``client.post("/claims", data={"photo": photo})``."""
    samples = sorted((config.load().models_dir / "samples").glob("*.jpg"))
    if not samples:
        pytest.skip("models/samples has no picture to send")
    return io.BytesIO(samples[0].read_bytes()), samples[0].name


def _wait_ready(app: Flask) -> None:
    end = time.monotonic() + READY_SECONDS
    while app.test_client().get("/readyz").status_code != 200:
        if time.monotonic() > end:
            raise TimeoutError(f"no model was ready within {READY_SECONDS:g} s")
        time.sleep(PERIOD_SECONDS)
