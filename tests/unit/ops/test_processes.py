"""Which processes are alive: by their notes, and by what the kernel says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.host import machine
from app.web.ops import processes
from app.web.ops.processes import Process


def folder(state_dir: Path) -> Path:
    return state_dir / "run" / "processes"


def note(state_dir: Path, name: str, text: str) -> Path:
    folder(state_dir).mkdir(parents=True, exist_ok=True)
    path = folder(state_dir) / name
    path.write_text(text)
    return path


def test_process_that_registers_is_alive(tmp_path: Path) -> None:
    processes.register(tmp_path, "web")

    found = processes.alive(tmp_path)

    assert found == [Process(os.getpid(), "web")]
    assert found[0].resident_bytes > 1_000_000


def test_nobody_registered_so_nobody_is_alive(tmp_path: Path) -> None:
    assert processes.alive(tmp_path) == []


def test_note_of_a_process_that_ended_is_removed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path = note(tmp_path, f"{child.pid}.json", json.dumps({"role": "web", "born": machine.born(child.pid)}))
    assert processes.alive(tmp_path) == [Process(child.pid, "web")]

    child.communicate()

    assert processes.alive(tmp_path) == []
    assert not path.exists()


def test_later_process_with_the_same_number_is_another(tmp_path: Path) -> None:
    note(tmp_path, f"{os.getpid()}.json", json.dumps({"role": "web", "born": 1}))

    assert processes.alive(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"role": "web"}', '{"born": 1}', '{"role": "web", "born": null}']
)
@pytest.mark.parametrize("number", [None, "99999999", "x"], ids=["of a process", "of nobody", "no number"])
def test_note_that_makes_no_sense_is_removed(tmp_path: Path, number: str | None, text: str) -> None:
    path = note(tmp_path, f"{number or os.getpid()}.json", text)

    assert processes.alive(tmp_path) == []
    assert not path.exists()


def test_folder_that_cannot_be_written_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")

    processes.register(tmp_path, "web")

    assert processes.alive(tmp_path) == []


def test_note_is_never_seen_half_written(tmp_path: Path) -> None:
    """Whoever looks just then would remove it, and the process would count as dead for ever."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            processes.alive(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(200):
        processes.register(tmp_path, "web")
    done.set()
    looking.join()

    assert processes.alive(tmp_path) == [Process(os.getpid(), "web")]
    assert [path.name for path in folder(tmp_path).iterdir()] == [f"{os.getpid()}.json"]
