"""Which of our processes are alive: each leaves a small file with its role; the kernel tells whether it still runs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.host import machine
from app.telemetry import shards

APACHE_NAMES = ("apache2", "httpd")


@dataclass(frozen=True)
class Process:
    """One living process of this service."""

    pid: int
    role: str

    @property
    def resident_bytes(self) -> int:
        """Memory of it that is in RAM."""
        return machine.resident_bytes(self.pid)

    @property
    def cpu_seconds(self) -> float:
        """Processor time it has used so far."""
        return machine.cpu_seconds(self.pid)


def register(state_dir: Path, role: str) -> None:
    """Note that this process exists. Does nothing where the folder cannot be written: readiness will tell."""
    folder = _folder(state_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note = {"role": role, "born": machine.born(os.getpid())}
        # Renamed into place: whoever reads half a note takes its process for dead and removes it.
        written = folder / f"{os.getpid()}.new"
        written.write_text(json.dumps(note))
        written.rename(folder / f"{os.getpid()}.json")
    except OSError:
        return


def alive(state_dir: Path) -> list[Process]:
    """Every registered process that still runs; notes of those that ended are removed."""
    found = []
    for path in sorted(_folder(state_dir).glob("*.json")):
        process = _read(path)
        if process is None:
            _forget(path)
        else:
            found.append(process)
    # It leaves no note, for it is no process of ours that answers.
    return found + [Process(sign.pid, sign.role) for sign in shards.signs(state_dir) if sign.role == "jobs"]


def of_apache(known: Sequence[Process]) -> list[Process]:
    """The server's own processes: our parent, where it is Apache, and those of its children that are not ``known``."""
    parent = os.getppid()
    try:
        if Path(f"/proc/{parent}/comm").read_text().strip() not in APACHE_NAMES:
            return []
        children = [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except (OSError, ValueError):
        # Not Apache's child, or a kernel that does not tell.
        return []
    named = {process.pid for process in known}
    return [Process(pid, "apache") for pid in (parent, *children) if pid not in named]


def _folder(state_dir: Path) -> Path:
    return state_dir / "run" / "processes"


def _forget(path: Path) -> None:
    # Another user's note, or one that a sibling has just removed: it does no harm.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _read(path: Path) -> Process | None:
    try:
        note = json.loads(path.read_text())
        pid = int(path.stem)
        born = machine.born(pid)
        return Process(pid, note["role"]) if born is not None and born == note["born"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
