"""A Redis of one's own for tests: a free port of loopback, nothing written unless asked, ended by its process id."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.certificates import Pair


@dataclass
class RedisServer:
    """A running one; ``process`` may be stopped, continued and ended."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def answers(self) -> bool:
        """Whether it says PONG."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@contextlib.contextmanager
def running(port: int = 0, folder: Path | None = None, *options: str) -> Iterator[RedisServer]:
    """Serve until the block ends. ``folder``: where each change is written down, for a successor to go on from.

    Skips the test where Redis is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    port = port or servers.free_port()
    kept = ["--appendonly", "no"] if folder is None else ["--appendonly", "yes", "--dir", str(folder)]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", *kept, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = RedisServer(port, process)
    try:
        servers.wait_until(server.answers, 20, "Redis")
        yield server
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def encrypted(pair: Pair, host: str = "localhost", password: str = "") -> Iterator[str]:
    """Serve by TLS alone, with this certificate, until the block ends; the address with ``host`` in it.

    Skips the test where Redis is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    port = servers.free_port()
    command = [
        *(program, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        *("--tls-cert-file", str(pair.certificate), "--tls-key-file", str(pair.key), "--tls-auth-clients", "no"),
        *(("--requirepass", password) if password else ()),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        servers.wait_until(lambda: _listens(port), 20, "Redis")
        yield f"rediss://{f':{password}@' if password else ''}{host}:{port}/1"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
