"""What a person has saved below some folders: for servers that answer anew after a save."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

# Time and size of each file, by its path.
Stamp = dict[str, tuple[int, int]]
PERIOD_SECONDS, SETTLED_SECONDS = 0.05, 0.1
# A file without content that is younger has been cut off by an editor that is about to write it.
EMPTY_SECONDS = 1.0
# Neither written by a person nor small.
LEFT_OUT = frozenset({"environment", "__pycache__", ".git", ".venv", "node_modules"})


def stamp(folder: Path, is_meant: Callable[[Path], bool] = lambda path: True) -> Stamp:
    """Every file below it that a person saves; what editors put beside it does not count."""
    found: Stamp = {}
    for place, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            # A virtual environment, whatever it is called.
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or name.endswith("~") or not is_meant(path):
                continue
            try:
                about = path.stat()
            except OSError:
                continue
            if path.is_file():
                found[str(path.relative_to(folder))] = about.st_mtime_ns, about.st_size
    return found


def settled(look: Callable[[], Stamp], now: Stamp) -> Stamp:
    """Wait: an editor may write in several steps, and a person save several files."""
    while True:
        time.sleep(SETTLED_SECONDS)
        before, now = now, look()
        if now == before and not _is_being_written(now):
            return now


def _is_being_written(now: Stamp) -> bool:
    at = time.time_ns()
    return any(size == 0 and 0 <= at - changed_ns < EMPTY_SECONDS * 1e9 for changed_ns, size in now.values())


def changed(before: Stamp, now: Stamp) -> list[str]:
    """Names of what is new, different or gone."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
