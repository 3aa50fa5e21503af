"""A version that does not finish loading: callers are answered, and the next change of versions is not held up."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.engine.client import EngineClient, Say
from app.errors import ChangeRefusedError
from tests import servers, stores
from tests.attacks.attack import attack
from tests.servers import Server
from tests.stores import CLASSIFIER

SECONDS = 6.0
# Gigabytes of nothing, whose digest takes many seconds.
LARGE_BYTES = 5 * 1024**3
# What a change that needs no load, and a refusal, may take on a busy machine.
ANSWER_SECONDS = 5.0
# It has to load a small model and to prove its answers, beside the callers.
LOAD_SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The demonstration's models; version 7 of one takes long to load, version 2 is good."""
    folder = servers.make_state_dir()
    store = stores.make(folder, CLASSIFIER, "site-safety-detector")
    try:
        with servers.running("test", MODELS_DIR=str(store)) as running:
            # Added after the start, as an operator does.
            os.truncate(stores.add_version(store, "7").weights_path, LARGE_BYTES)
            # Between its promotion and the way back it answers honest callers, who look for the right labels.
            stores.add_version(store, "2", is_told_apart=False)
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def change(
    server: Server,
    action: str,
    version: str = "",
    share: float = 0.0,
    say: Say = lambda line: None,
    *,
    within: float = ANSWER_SECONDS,
) -> str:
    """What came of a change: the active version, or why it was refused. Raises AssertionError when that took longer."""
    began = time.monotonic()
    client = EngineClient(server.state_dir / "run" / "engine.sock")
    try:
        done = client.change(action, CLASSIFIER, version, share, is_anyway=True, say=say)
        came = str(done.get("given_up") or done["after"]["active"])
    except ChangeRefusedError as error:
        came = error.message
    finally:
        client.close()
    assert time.monotonic() - began <= within, f"{action} {version}: {came}"
    return came


def test_a_slow_load_holds_up_neither_callers_nor_the_next_change(server: Server) -> None:
    is_loading = threading.Event()

    def say(line: str) -> None:
        if line == "loading the weights":
            is_loading.set()

    with attack("a load of 5 GB, given up", server) as running, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(change, server, "promote", "7", 0.0, say, within=LOAD_SECONDS)
        assert is_loading.wait(LOAD_SECONDS)
        canary, second = change(server, "canary", "2", 10), change(server, "promote", "7")
        ended = change(server, "give-up")
        again = change(server, "promote", "7")
        # Beside the load that goes on.
        promoted = change(server, "promote", "2", within=LOAD_SECONDS)
        back = change(server, "rollback")
        threading.Event().wait(SECONDS)

    running.figures.require()
    for refused in (canary, second):
        assert f"under way: promote {CLASSIFIER}@7, for" in refused and "now loading the weights" in refused
    assert f"promote {CLASSIFIER}@7" in ended
    assert "an operator asked for it. Nothing has changed." in slow.result(LOAD_SECONDS)
    assert "is still being loaded by a change that was given up" in again
    assert (promoted, back) == ("2", "1")
