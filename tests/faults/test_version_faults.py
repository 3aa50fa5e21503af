"""The engine dies in the middle of a change, two operators want different things, the pointer's file is damaged."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.errors import ChangeRefusedError, EngineAwayError
from app.models import roles
from tests import servers, stores
from tests.stores import CLASSIFIER
from tests.versioned import Versioned, versioned

REPLACED_SECONDS = 60.0
LARGE_BYTES = 5 * 1024**3


@pytest.fixture(scope="module")
def service() -> Iterator[Versioned]:
    """May be harmed; every test leaves it ready again."""
    with versioned() as made:
        yield made


@pytest.fixture
def image() -> bytes:
    return (servers.ROOT / "models" / "samples" / "cone.jpg").read_bytes()


def add_version_that_loads_for_long(service: Versioned, version: str) -> Path:
    """Its weights are gigabytes of nothing, whose digest takes many seconds to compute."""
    weights = stores.add_version(service.store, version).weights_path
    os.truncate(weights, LARGE_BYTES)
    return weights


def test_an_engine_killed_in_the_middle_of_a_promotion_comes_back_with_the_old_version(
    service: Versioned, image: bytes
) -> None:
    add_version_that_loads_for_long(service, "7")
    victim, is_loading = service.server.engine_pid(), threading.Event()

    def say(line: str) -> None:
        if line == "loading the weights":
            is_loading.set()

    with ThreadPoolExecutor(1) as pool:
        promotion = pool.submit(service.change, "promote", "7", 0.0, say)
        assert is_loading.wait(20)
        meanwhile = service.check(service.classify(image))
        with pytest.raises(ChangeRefusedError, match="Another change of versions is under way"):
            service.change("promote", "2")
        second = service.command("promote", CLASSIFIER, "2")
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(EngineAwayError):
            promotion.result(20)
    servers.wait_until(service.server.is_ready, REPLACED_SECONDS, "a new engine")

    assert meanwhile == "1"
    assert second.returncode == 1 and "Another change of versions is under way" in second.stderr
    assert roles.read(service.server.state_dir)[CLASSIFIER].active == "1"
    assert service.server.engine_pid() != victim
    assert service.check(service.classify(image)) == "1"


def test_a_promotion_outlives_the_engine(service: Versioned, image: bytes) -> None:
    service.change("promote", "2")
    stores.add_version(service.store, "8")

    os.kill(service.server.engine_pid(), signal.SIGKILL)
    servers.wait_until(lambda: not service.server.is_ready(), 30, "the engine to be missed")
    servers.wait_until(service.server.is_ready, REPLACED_SECONDS, "a new engine")

    # Neither the version of the first start nor the newest in the store.
    assert service.check(service.classify(image)) == "2"
    assert [row["version"] for row in service.client.status()["models"]] == ["2"]
    assert service.change("rollback")["after"]["active"] == "1"
    assert service.check(service.classify(image)) == "1"


def test_a_damaged_pointer_is_said_and_what_serves_goes_on(service: Versioned, image: bytes) -> None:
    roles.path(service.server.state_dir).write_text("{")

    during = service.check(service.classify(image))
    done = service.command("promote", CLASSIFIER, "2")
    after = service.check(service.classify(image))

    assert during == "1"
    assert "roles.json cannot be used" in service.server.log()
    assert done.returncode == 0, done.stderr
    assert after == "2"
