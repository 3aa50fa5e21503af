"""What all tests share: one running server for the whole session, and real images."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from app import config
from tests import code_examples, servers
from tests.certificates import Authority

SAMPLES = servers.ROOT / "models" / "samples"
# What `make test PART=unit ENV=prod` leaves in the environment: for the make that runs us, and the service of others.
OF_MAKE = ("GIVEN_", "MAKE", "MFLAGS")
# A busy machine is no failure, and nothing is to be left in the checkout.
hypothesis.settings.register_profile(
    "cask", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("cask")


def pytest_configure() -> None:
    """Let tests act alike below a make or a script and without one, whatever was given to it."""
    settings = {name.upper() for name in config.DECLARATIONS}
    for name in [each for each in os.environ if each.startswith(OF_MAKE) or each in settings]:
        del os.environ[name]
    # A script that runs the tests in its background has it ignored, and every program that they start would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def served() -> Iterator[servers.Server]:
    """The whole service under Apache for ENV=test, ready to answer. Tests may not harm it."""
    with servers.running("test", LOG_LEVEL="info") as server:
        yield server


@pytest.fixture(scope="session")
def coded() -> Iterator[servers.Server]:
    """The same with the models with code of ``code_examples``, and kept answers. Tests may not harm it."""
    folder = servers.make_state_dir()
    place = code_examples.store(folder / "models", "tickets", "brightness")
    with servers.running("test", MODELS_DIR=str(place), CACHE="disk", WEB_PROCESSES="1") as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def served_url(served: servers.Server) -> str:
    """Where the service answers."""
    return served.url


@pytest.fixture(scope="session")
def samples() -> list[dict[str, Any]]:
    """models/samples/index.json: what is in each sample image."""
    found: list[dict[str, Any]] = json.loads((SAMPLES / "index.json").read_text())
    return found


@pytest.fixture(scope="session")
def sample_path(samples: list[dict[str, Any]]) -> Path:
    """One sample image with something to find."""
    return SAMPLES / next(each["file"] for each in samples if each["task"] == "detect")


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that the service user may enter."""
    path = servers.make_state_dir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def authority(open_folder: Path) -> Authority:
    """Signs certificates, in the open folder."""
    return Authority(open_folder)
