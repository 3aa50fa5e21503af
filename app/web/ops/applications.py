"""How whole applications of others are, as their own processes note it (apache/application.py)."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

# Below STATE_DIR: a folder for each, with a file for each process.
FOLDER = Path("run") / "applications"
SERVING, FAILED, LOADING = "serving", "failed", "loading"


@dataclass(frozen=True)
class Process:
    """One process of an application. ``reason``: the last lines of what went wrong."""

    pid: int
    state: str
    reason: str


def processes(state_dir: Path, name: str) -> list[Process]:
    """Those that live. Never raises."""
    return [each for each in _noted(state_dir, name) if _is_alive(each.pid)]


def state(state_dir: Path, name: str) -> tuple[str, str]:
    """Of an application: serving, loading or failed, and why. Never raises."""
    found = processes(state_dir, name)
    for each in found:
        if each.state == FAILED:
            return FAILED, each.reason
    if any(each.state == SERVING for each in found):
        return SERVING, ""
    gone = next((each for each in _noted(state_dir, name) if each.state == LOADING and not _is_alive(each.pid)), None)
    if gone is not None and not found:
        return FAILED, "its process ended while it was imported"
    return LOADING, "it is still being imported"


def _noted(state_dir: Path, name: str) -> list[Process]:
    found = []
    for path in sorted((state_dir / FOLDER / name).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            note = json.loads(path.read_bytes())
            found.append(Process(int(path.stem), note["state"], note["reason"]))
    return found


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
