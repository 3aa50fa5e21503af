"""The harness itself: without an attack nothing is lost, and a service that is stopped is seen to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from tests import servers
from tests.attacks.attack import attack
from tests.attacks.memory_groups import MemoryGroup
from tests.servers import Server

QUIET_SECONDS = 5.0
LIMIT_BYTES = 2 * 1024**3


def test_without_an_attack_every_honest_caller_is_answered(served: Server) -> None:
    with attack("none", served) as running:
        threading.Event().wait(QUIET_SECONDS)

    running.figures.require(answered=1.0, live=1.0)
    assert running.figures.recovery_seconds == 0


def test_a_service_that_stands_still_is_seen_from_outside(served: Server) -> None:
    with attack("Apache stopped for 3 s", served, deadline_seconds=1.0) as running:
        pids = [served.process.pid, *served.pids("web")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)  # This is the attack itself.
        for pid in pids:
            servers.resume(pid)

    assert running.figures.answered < 0.9
    assert running.figures.failures


def test_a_service_with_a_limit_of_memory_sees_it(limited_memory: Callable[[int], MemoryGroup]) -> None:
    group = limited_memory(LIMIT_BYTES)
    asked = [sys.executable, "-c", "from app.host import machine; print(machine.available_bytes())"]
    done = subprocess.run([*group.command_prefix, *asked], cwd=servers.ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == LIMIT_BYTES

    with servers.running("test", command_prefix=group.command_prefix) as server:
        with attack("none, within 2 GB", server) as running:
            threading.Event().wait(QUIET_SECONDS)
        assert group.kills() == 0

    running.figures.require(answered=1.0, peak_bytes=LIMIT_BYTES)
