"""Processes that a model starts itself: they import what it imports, end with it, and count as its memory."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from app.errors import ModelCrashedError, UnavailableError
from app.model_code.worker import ModelWorker, Spec
from tests import servers
from tests.unit.model_code import folders

PATIENCE_SECONDS = 60.0
POOL = """
    import multiprocessing, os, sys, time
    from concurrent.futures import ProcessPoolExecutor
    from pathlib import Path
    from cask import Label, Model, batch
    import beside

    def double(value: int) -> Label:
        return Label(beside.WORD, 2.0 * value, )

    class Mine(Model):
        def load(self, folder: Path) -> None:
            self.pool = ProcessPoolExecutor(2, multiprocessing.get_context("{method}"))

        @batch(max_size=8)
        def predict(self, x: list[int]) -> list[list[Label]]:
            return [[each] for each in self.pool.map(double, x)]
"""


def started(folder: Path, code: str, **limits: Any) -> ModelWorker:
    folders.write(folder, code)
    (folder / "beside.py").write_text("WORD = 'new'\n")
    running = ModelWorker(Spec("mine@1", folder, **limits))
    running.start()
    return running


def ask(running: ModelWorker, *values: int) -> list[Any]:
    rows = running.ask({}, [([value], b"") for value in values])
    return [json.loads(row["answer"]) if row["bytes"] else row for row in rows]


def children(pid: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(place.name), *children(int(place.name))]
    return found


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pool_of_processes_works_and_ends_with_the_model(tmp_path: Path, method: str) -> None:
    running = started(tmp_path / "mine", POOL.replace("{method}", method))
    try:
        assert ask(running, 1, 2, 3) == [[{"label": "new", "score": 2.0 * each}] for each in (1, 2, 3)], running.lines
        found = children(running.pid)
        assert len(found) >= 2
        os.kill(running.pid, signal.SIGKILL)
        servers.wait_until(lambda: not any(map(is_there, found)), PATIENCE_SECONDS, "their end")
        servers.wait_until(lambda: is_back(running), PATIENCE_SECONDS, "the next process")
        found = children(running.pid)
    finally:
        running.close()

    servers.wait_until(lambda: not any(map(is_there, found)), PATIENCE_SECONDS, "their end")


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_back(running: ModelWorker) -> bool:
    try:
        return len(ask(running, 0)) == 1
    except UnavailableError:
        return False


def test_children_have_the_modules_of_the_model_and_none_of_casks(tmp_path: Path) -> None:
    """What lies in __pycache__ is run in a child as little as in the model, and `app` is nobody's name."""
    code = POOL.replace("{method}", "spawn").replace(
        "Label(beside.WORD, 2.0 * value, )",
        "Label(' '.join(p for p in [os.environ.get('PYTHONPATH', ''), *sys.path] if os.path.exists(p + '/app')), 1)",
    )
    running = started(tmp_path / "mine", code)
    try:
        assert ask(running, 1) == [[{"label": "", "score": 1.0}]], running.lines
    finally:
        running.close()


def test_memory_of_children_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is within the limit, all together are not."""
    code = """
        import os, time
        from cask import Model

        class Mine(Model):
            def predict(self, x: list[int]) -> list[int]:
                for _ in range(x[0]):
                    if os.fork() == 0:
                        held = bytearray(b"x") * 120_000_000
                        time.sleep(600)
                time.sleep(600 if x[0] else 0)
                return x
    """
    running = started(tmp_path / "mine", code, memory_mb=400, timeout_seconds=PATIENCE_SECONDS)
    try:
        assert ask(running, 0) == [0]
        with pytest.raises(ModelCrashedError):
            ask(running, 5)
        assert "allowed are 400 MB (memory_mb)" in caplog.text
        servers.wait_until(lambda: is_back(running), PATIENCE_SECONDS, "the next process")
    finally:
        running.close()
