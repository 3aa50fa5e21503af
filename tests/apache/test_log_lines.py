"""Lines of Apache's logs are written together where many come; each is there soon, whole, and once.

Needs mod_log_lines.so beside the Python that runs this: apache/modules/build.sh .venv.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests import bare_apache, servers

PATIENCE_SECONDS = 60.0
IN_A_ROW = 200
CONFIGURATION = r"""
LoadModule log_lines_module {modules}/mod_log_lines.so
ServerLimit 2
StartServers 2
ThreadLimit 8
ThreadsPerChild 8
MaxRequestWorkers 16
MinSpareThreads 1
MaxSpareThreads 16
MaxKeepAliveRequests 0
LimitRequestLine 8190
LogFormat "begin %Z %U end" told
CustomLog {home}/one told
CustomLog {home}/other told
"""
LINE = re.compile(r"begin (\d{3}|-) (/\S*) end")


@dataclass
class Bare:
    """Apache with the module and two logs of the same lines."""

    apache: bare_apache.BareApache

    def asked(self, name: str) -> Counter[str]:
        """How often each address stands in a log. Raises AssertionError where a line is not whole."""
        text = (self.apache.home / name).read_text()
        lines = text.splitlines()
        if text and not text.endswith("\n"):
            # Still being written.
            lines.pop()
        found = [LINE.fullmatch(line) for line in lines]
        assert all(found), [line for line, match in zip(lines, found, strict=True) if not match][:3]
        return Counter(match[2] for match in found if match)

    def ask_in_a_row(self, prefix: str, count: int = IN_A_ROW) -> list[str]:
        """By one connection, without waiting for answers: as fast as a child can. The addresses."""
        paths = [f"/{prefix}-{n}" for n in range(count)]
        wanted = "".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths)
        with socket.create_connection(("127.0.0.1", self.apache.port), PATIENCE_SECONDS) as sock:
            sending = threading.Thread(target=sock.sendall, args=(wanted.encode(),))
            sending.start()
            seen, answers = b"", 0
            while answers < count:
                received = sock.recv(65536)
                assert received, f"the connection ended after {answers} answers"
                seen += received
                answers += seen.count(b"</html>")
                seen = seen[-6:] if b"</html>" in seen else seen
            sending.join()
        return paths

    def wait_for(self, paths: list[str]) -> None:
        for name in ("one", "other"):
            servers.wait_until(
                lambda name=name: set(paths) <= set(self.asked(name)),  # type: ignore[misc]
                PATIENCE_SECONDS,
                f"all lines of {name}",
            )

    def writes(self) -> int:
        """How often its processes have written to anything."""
        return sum(each.io_counters().write_count for each in psutil.Process(self.apache.process.pid).children())


@pytest.fixture
def bare() -> Iterator[Bare]:
    home: Path = servers.make_state_dir()
    with bare_apache.running(CONFIGURATION.replace("{modules}", str(bare_apache.MODULES)), home) as apache:
        yield Bare(apache)


def test_each_line_is_there_once_and_whole(bare: Bare) -> None:
    found: list[str] = []
    callers = [threading.Thread(target=lambda n=n: found.extend(bare.ask_in_a_row(str(n)))) for n in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert len(found) == 6 * IN_A_ROW
    bare.wait_for(found)
    assert set((bare.asked("one") + bare.asked("other")).values()) == {2}


def test_many_are_written_together(bare: Bare) -> None:
    before = bare.writes()

    bare.wait_for(bare.ask_in_a_row("a"))

    # One by one they would be two for each request, and its answer.
    assert bare.writes() - before < 1.5 * IN_A_ROW


def test_a_lone_line_and_a_long_one_are_there_soon(bare: Bare) -> None:
    long = "/" + "a" * 8000
    for path in ("/lone", long, "/after"):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", bare.apache.port, timeout=30)) as connection:
            connection.request("GET", path)
            assert connection.getresponse().status in (403, 404)
        bare.wait_for([path])

    bare.ask_in_a_row("a", 5)
    bare.wait_for([f"/a-{n}" for n in range(5)])
    assert set(bare.asked("one").values()) == {1}


@pytest.fixture(scope="module")
def gathering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module as it is but for its patience: what it writes in this test, it writes because its process ends."""
    # A copy: apxs leaves files beside the source.
    folder = tmp_path_factory.mktemp("module")
    shutil.copy(servers.ROOT / "apache" / "modules" / "mod_log_lines.c", folder)
    command = ["apxs", "-Wc,-DGATHER_MS=3600000", "-c", "mod_log_lines.c"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / ".libs"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGWINCH, signal.SIGUSR1], ids=["at once", "in order", "anew"])
def test_a_server_that_ends_writes_what_it_has(gathering: Path, how: signal.Signals) -> None:
    home = servers.make_state_dir()
    (home / "mod_log_lines.so").write_bytes((gathering / "mod_log_lines.so").read_bytes())
    with bare_apache.running(CONFIGURATION.replace("{modules}", "{home}"), home) as apache:
        bare = Bare(apache)
        # Fewer than are written together. The first one of a process is not kept waiting.
        paths = bare.ask_in_a_row("a", 100)
        assert bare.asked("one") == bare.asked("other") == Counter(paths[:1])

        apache.process.send_signal(how)
        if how != signal.SIGUSR1:
            apache.process.wait(PATIENCE_SECONDS)

        bare.wait_for(paths)
        assert bare.asked("one") == bare.asked("other") == Counter(paths)
