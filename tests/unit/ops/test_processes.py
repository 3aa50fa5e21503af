"""Which processes are alive: by their files in run/metrics, and by what the kernel says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.host import machine
from app.telemetry import shards
from app.telemetry.shards import MetricsShard
from app.web.ops import processes
from app.web.ops.processes import Process

CLAIM = "import sys, pathlib; from app.telemetry import metrics; metrics.begin(pathlib.Path(sys.argv[1]), sys.argv[2])"


def test_process_that_counts_is_alive(tmp_path: Path) -> None:
    shard, _ = MetricsShard.claim(tmp_path, "web")

    found = processes.alive(tmp_path)

    assert found == [Process(os.getpid(), "web")]
    assert found[0].resident_bytes > 1_000_000
    shard.stop()


def test_nobody_counts_so_nobody_is_alive(tmp_path: Path) -> None:
    assert processes.alive(tmp_path) == []


@pytest.mark.parametrize(("role", "is_told"), [("ops", True), ("jobs", True), ("engine", False)])
def test_process_that_ended_is_not_alive(tmp_path: Path, role: str, is_told: bool) -> None:
    command = [sys.executable, "-c", f"{CLAIM}; print('there', flush=True); input()", str(tmp_path), role]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    assert processes.alive(tmp_path) == ([Process(child.pid, role)] if is_told else [])

    child.communicate("")

    assert processes.alive(tmp_path) == []


def test_later_process_with_the_same_number_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, _ = MetricsShard.claim(tmp_path, "web")
    born = machine.born(os.getpid())
    assert born is not None
    monkeypatch.setattr(shards.machine, "born", lambda pid: born + 1)

    assert processes.alive(tmp_path) == []
    shard.stop()


def test_folder_that_cannot_be_read_holds_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")

    assert processes.alive(tmp_path) == []
