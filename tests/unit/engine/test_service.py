"""The engine as a process: put together from the settings, drained when told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT
from app.engine import service
from app.engine.client import EngineClient
from app.engine.worker import Workers
from app.errors import EngineAwayError, ManifestError
from tests import fakes
from tests.fakes import PATIENCE_SECONDS, FakeModel, eventually


def settings_for(tmp_path: Path, **changes: object) -> object:
    return fakes.make_settings(tmp_path / "state", tmp_path / "models", **changes)


def test_workers_are_as_many_as_set_and_batches_as_large_as_model_and_settings_allow(tmp_path: Path) -> None:
    small = fakes.make_manifest(tmp_path / "models", "small", serve={"max_batch_size": 2})
    large = fakes.make_manifest(tmp_path / "models", "large", serve={"max_batch_size": 100})
    settings = settings_for(tmp_path, engine_workers=3, engine_max_batch_size=8, engine_max_queue_size=9)

    workers: Workers = service.build(settings, FakeModel)._workers  # type: ignore[arg-type]

    assert workers.status()["workers"] == 3
    assert workers.status()["max_queue_size"] == 9
    lines = workers._batcher._lines
    assert [lines[each.key].limits.max_batch_size for each in (small, large)] == [2, 8]


def test_delay_is_the_models_own_where_it_says_one_else_the_settings(tmp_path: Path) -> None:
    quick = fakes.make_manifest(tmp_path / "models", "quick", serve={"max_queue_delay_ms": 0})
    slow = fakes.make_manifest(tmp_path / "models", "slow", serve={"max_queue_delay_ms": 20.5})
    usual = fakes.make_manifest(tmp_path / "models", "usual")
    settings = settings_for(tmp_path, engine_max_queue_delay_ms=5)

    delays = [service.limits(settings, each).max_queue_delay_ms for each in (quick, slow, usual)]  # type: ignore[arg-type]

    assert delays == [0, 20.5, 5]


def test_engine_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no model"):
        service.build(settings_for(tmp_path), FakeModel)  # type: ignore[arg-type]


ENGINE = """
import logging, sys
from pathlib import Path
from app.supervision import standalone
from app.engine import service
from tests import fakes
logging.basicConfig(level="INFO")
folder = Path(sys.argv[1])
service._loader = lambda settings, workers: fakes.FakeModel
standalone.handle_signals()
service.run(fakes.make_settings(folder / "state", folder / "models", engine_drain_seconds=5))
"""
COMMAND = [sys.executable, "-c", ENGINE]


def test_process_serves_until_sigterm_and_leaves_nothing_behind(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models")
    path = tmp_path / "state" / "run" / "engine.sock"
    client = EngineClient(path)
    process = subprocess.Popen([*COMMAND, tmp_path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    eventually(path.exists, "the socket")
    assert client.status()["pid"] == client.peer_pid() == process.pid

    # It may not yet wait for signals at this moment.
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_SECONDS)

    assert (process.returncode, path.exists()) == (0, False)
    assert f"engine {process.pid} stopped\n" in log
    with pytest.raises(EngineAwayError):
        client.status()
    client.close()


@pytest.mark.parametrize(("is_start", "first", "then"), [(True, 0, 5), (False, 5, 5)])
def test_engine_steps_back_once_the_models_of_a_start_are_loaded(
    tmp_path: Path, is_start: bool, first: int, then: int
) -> None:
    fakes.write_model(tmp_path / "models")
    may_load, level = tmp_path / "may-load", tmp_path / "level"
    slow = f"""
import os, threading, time
def load(manifest):
    Path({str(level)!r}).write_text(str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    while not Path({str(may_load)!r}).exists(): time.sleep(0.01)
    return fakes.FakeModel(manifest)
service._loader = lambda settings, workers: load
service.first_start.is_now = lambda: {is_start}
standalone"""
    program = ENGINE.replace("service._loader = lambda settings, workers: fakes.FakeModel\nstandalone", slow)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: level.exists() and level.read_text(), "the loader")
        assert int(level.read_text()) == min(19, own + first)

        may_load.touch()

        # Every thread: each has a level of its own.
        eventually(lambda: levels(process.pid) == {min(19, own + then)}, "the step back")
    finally:
        process.kill()
        process.wait()


def levels(pid: int) -> set[int]:
    """Those of the threads of a process, but for what looks after the models, which is behind all."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.getpriority(os.PRIO_PROCESS, int(thread.name)))
    return found - {19}


def test_process_that_was_killed_leaves_a_socket_that_the_next_one_replaces(tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models")
    path = tmp_path / "state" / "run" / "engine.sock"
    process = subprocess.Popen([*COMMAND, tmp_path], cwd=ROOT, stderr=subprocess.DEVNULL)
    eventually(path.exists, "the socket")
    process.kill()
    process.wait()
    assert path.exists()

    with fakes.running_engine(path, [fakes.make_manifest(tmp_path / "models")]) as engine:
        assert engine.client.status()["models"][0]["state"] == "ready"


def test_log_says_who_listens_and_who_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cask.engine")
    with fakes.running_engine(tmp_path / "engine.sock", [fakes.make_manifest(tmp_path / "models")]):
        # The model is ready before its line is written.
        eventually(lambda: "is ready after" in caplog.text, "the line")

    words = " ".join(record.getMessage() for record in caplog.records)
    assert "listens on" in words and "is ready after" in words and "stopped" in words
