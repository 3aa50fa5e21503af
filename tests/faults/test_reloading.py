"""A reload under load loses no request, takes changed settings, and refuses wrong ones before it touches anything."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

CALLERS = 6


def reload(server: Server, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = servers.environment("test", PORT=str(server.port), STATE_DIR=str(server.state_dir), **settings)
    command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_reload_under_load_loses_nothing(sample_path: Path, processes: str) -> None:
    image, seen, is_over = sample_path.read_bytes(), Counter[int](), threading.Event()

    def call(server: Server) -> None:
        while not is_over.is_set():
            try:
                seen[server.ask("/v1/detect", image, {"Content-Type": "image/jpeg"}, timeout=60).status] += 1
            except OSError:
                seen[0] += 1

    with servers.running("test", WEB_PROCESSES=processes, WEB_THREADS="24") as server:
        before = set(server.pids("web"))
        callers = [threading.Thread(target=call, args=(server,)) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        servers.wait_until(lambda: seen[200] > CALLERS, 60, "the first answers")
        done = reload(server)
        at_end = seen[200]
        servers.wait_until(lambda: seen[200] > at_end + CALLERS, 60, "answers after it")
        is_over.set()
        for caller in callers:
            caller.join(90)
        servers.wait_until(server.is_ready, 60, "the service")
        after = set(server.pids("web"))

    assert done.returncode == 0, done.stderr
    assert set(seen) - {200} == set(), seen
    assert len(before) == len(after) == int(processes)
    assert before & after == set()


def test_wrong_settings_and_nobody_there_are_one_line(served: Server) -> None:
    before = served.pids("web")
    wrong = reload(served, WEB_THREADS="many")

    assert wrong.returncode == 2
    assert "Nothing was touched" in wrong.stderr
    assert served.pids("web") == before

    nobody = servers.make_state_dir()
    environment = servers.environment("test", STATE_DIR=str(nobody))
    command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"FAIL: nothing runs with {nobody}.\n")
