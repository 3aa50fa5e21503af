"""A reload under load loses no request, takes changed settings, and refuses wrong ones before it touches anything."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests import servers
from tests.servers import Server

CALLERS = 6
# On a machine without a free core a new process takes long.
REPLACED_SECONDS = 120.0


def reload(server: Server, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = servers.environment("test", PORT=str(server.port), STATE_DIR=str(server.state_dir), **settings)
    command = [sys.executable, str(servers.ROOT / "apache" / "reload.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


@contextlib.contextmanager
def under_load(image: bytes, processes: str) -> Iterator[tuple[Server, Counter[str]]]:
    """A service that callers ask all the time, and what they got."""
    seen, is_over = Counter[str](), threading.Event()

    def call(server: Server) -> None:
        while not is_over.is_set():
            try:
                answer = server.ask("/v1/detect", image, {"Content-Type": "image/jpeg"}, timeout=60)
                seen["right" if answer.status == 200 else f"{answer.status} {answer.body[:200]!r}"] += 1
            except OSError as error:
                seen[repr(error)] += 1

    # Nobody is refused because this machine is busy with other tests.
    settings = {"WEB_PROCESSES": processes, "WEB_THREADS": "24", "REQUEST_MAX_WAIT_SECONDS": "60"}
    with servers.running("test", **settings) as server:
        callers = [threading.Thread(target=call, args=(server,)) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            servers.wait_until(lambda: seen["right"] > CALLERS, 60, "the first answers")
            yield server, seen
            at_end = seen["right"]
            servers.wait_until(lambda: seen["right"] > at_end + CALLERS, 60, "answers after it")
        finally:
            is_over.set()
            for caller in callers:
                caller.join(90)
        servers.wait_until(server.is_ready, 60, "the service")


def test_a_reload_under_load_loses_nothing(sample_path: Path) -> None:
    with under_load(sample_path.read_bytes(), processes="1") as (server, seen):
        before = server.pids("web")
        done = reload(server)
        after = server.pids("web")

    assert done.returncode == 0, done.stderr
    assert set(seen) == {"right"}, seen
    assert len(before) == len(after) == 1
    assert before != after


def test_what_others_send_to_apache_to_reload_it_loses_nothing(sample_path: Path) -> None:
    """`apachectl graceful` as logrotate sends it (SIGUSR1); many at once, with SIGHUP as old habits have it."""
    with under_load(sample_path.read_bytes(), processes="2") as (server, seen):
        engine, first = server.engine_pid(), server.process.pid
        for way in ("apachectl graceful", "ten of both"):
            before = {role: set(server.pids(role)) for role in ("web", "ops", "apache")}
            if way == "apachectl graceful":
                apachectl = server.state_dir / "run" / "httpd" / "apachectl"
                subprocess.run(["bash", apachectl, "graceful"], check=True, capture_output=True, timeout=60)
            else:
                for number in [signal.SIGHUP, signal.SIGUSR1] * 10:
                    server.process.send_signal(number)
            servers.wait_until(partial(is_replaced, server, before), REPLACED_SECONDS, way)
            assert (server.engine_pid(), server.process.poll()) == (engine, None)
            assert first in server.pids("apache")
        asked = server.state_dir / "run" / "httpd" / "reload-asked"
        servers.wait_until(lambda: not asked.exists(), REPLACED_SECONDS, "the last request to be heard")
        assert "SIGHUP or SIGUSR1: reloading as make reload does" in server.log()

    assert set(seen) == {"right"}, seen


def is_replaced(server: Server, before: dict[str, set[int]]) -> bool:
    """Whether others stand in the place of all web and ops processes; Apache's own stay."""
    return (
        all(
            len(now := set(server.pids(role))) == len(before[role]) and not now & before[role]
            for role in ("web", "ops")
        )
        and set(server.pids("apache")) >= before["apache"]
    )


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
