"""A backup made under load costs no request, and an empty machine answers from it as the first one did."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import ROOT
from tests import servers
from tests.fakes import eventually
from tests.servers import Server

PHOTO = ROOT / "models" / "samples" / "cone.jpg"
CALLERS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.running("test", AUTHENTICATION="required") as running:
        yield running


def flask(server: Server, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        cwd=ROOT,
        env={**os.environ, "ENV": "test", "STATE_DIR": str(server.state_dir), **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )


def status(server: Server, path: str) -> int:
    try:
        return server.ask(path).status
    except OSError:
        return 0


def test_backup_under_load_loses_nothing_and_another_machine_answers_from_it(server: Server, tmp_path: Path) -> None:
    job = server.make_job(PHOTO.read_bytes(), 3)
    eventually(lambda: server.ask(f"/v1/jobs/{job}").json["state"] == "succeeded", "the job to end")
    before = server.ask(f"/v1/jobs/{job}/results").body
    made, stop, found = tmp_path / "cask.tar", threading.Event(), Counter[int]()

    def call() -> None:
        while not stop.is_set():
            found[server.ask("/v1/classify", PHOTO.read_bytes(), {"Content-Type": "image/jpeg"}).status] += 1

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for each in callers:
        each.start()
    done = [flask(server, "backup", "create", str(made)) for _ in range(3)]
    stop.set()
    for each in callers:
        each.join()

    assert [each.returncode for each in done] == [0, 0, 0], done[0].stderr
    assert set(found) == {200}
    assert made.stat().st_mode & 0o077 == 0
    empty = servers.make_state_dir()
    words = ("backup", "restore", str(made), "--only", "state", "--yes")
    restored = flask(server, *words, STATE_DIR=str(empty))
    assert restored.returncode == 0, restored.stderr
    with servers.start("test", servers.free_port(), empty, AUTHENTICATION="required") as other:
        # Its tokens are those of the first.
        other.token = server.token
        eventually(lambda: status(other, "/readyz") == 200, "the restored service")
        assert other.ask(f"/v1/jobs/{job}/results").body == before
    shutil.rmtree(empty, ignore_errors=True)


def test_check_starts_a_service_from_it_and_finds_a_changed_byte(server: Server, tmp_path: Path) -> None:
    made = tmp_path / "cask.tar"
    assert flask(server, "backup", "create", str(made)).returncode == 0

    checked = flask(server, "backup", "check", str(made))

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "tokens" in checked.stdout
    assert "site-safety-detector@1" in checked.stdout
    data = bytearray(made.read_bytes())
    data[len(data) // 2] ^= 1
    made.write_bytes(data)
    refused = flask(server, "backup", "check", str(made))
    assert refused.returncode == 1
    assert "damaged" in refused.stderr


def test_restore_below_the_running_service_is_refused(server: Server, tmp_path: Path) -> None:
    made = tmp_path / "cask.tar"
    assert flask(server, "backup", "create", str(made), "--only", "state").returncode == 0

    refused = flask(server, "backup", "restore", str(made), "--only", "state", "--yes")

    assert refused.returncode == 1
    assert "The service runs" in refused.stderr
    assert server.ask("/livez").status == 200
