"""docker/health.py: what Docker, `make up` and the image build ask the server, with the standard library alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.config import ROOT

PATIENCE_SECONDS = 60


class Server(ThreadingHTTPServer):
    """Answers /readyz with 503 and ``body`` until it was asked ``unready`` times."""

    unready, asked = 0, 0
    body = json.dumps({"missing": ["the engine", "a model"]}).encode()


class Ready(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        is_ready = self.server.asked > self.server.unready
        self.send_response(200 if is_ready else 503)
        self.end_headers()
        self.wfile.write(b"{}" if is_ready else self.server.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Ready) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def look(port: int, *seconds: str) -> tuple[int, str]:
    """Exit status, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-I", "docker/health.py", *seconds],
        cwd=ROOT,
        env={"PORT": str(port), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_it_looks_once_and_names_what_is_missing(server: Server) -> None:
    server.unready = 1

    assert look(server.server_port) == (1, "the engine; a model")
    assert look(server.server_port) == (0, "")
    assert server.asked == 2


def test_one_process_looks_until_it_is_ready(server: Server) -> None:
    server.unready = 5

    assert look(server.server_port, str(PATIENCE_SECONDS)) == (0, "")
    assert server.asked == 6


def test_it_gives_up_after_its_seconds(server: Server) -> None:
    server.unready, began = sys.maxsize, time.monotonic()

    assert look(server.server_port, "0.3") == (1, "the engine; a model")
    assert server.asked >= 2
    assert time.monotonic() - began >= 0.3


def test_what_is_no_answer_of_ours_is_not_ready(server: Server) -> None:
    server.unready, server.body = 1, b"<html>"

    assert look(server.server_port) == (1, "/readyz answered 503")
    assert look(1)[1].startswith("nothing answers: ")


def test_who_stands_by_is_well_but_not_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("health", ROOT / "docker" / "health.py")
    assert spec and spec.loader
    health = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(health)
    (tmp_path / "stands-by").touch()
    monkeypatch.setattr(health, "STANDS_BY", tmp_path / "stands-by")
    monkeypatch.setenv("PORT", "1")

    assert health.main() == 0
    # A deploy that waits for it wants an answer.
    assert health.main(0.01) == 1
