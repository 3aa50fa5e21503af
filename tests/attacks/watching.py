"""Watch a service from outside while it is attacked: its processes and the memory they hold."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from pathlib import Path

PERIOD_SECONDS = 0.5


def tree(root_pid: int) -> set[int]:
    """A process and all that descend from it."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Field 4 of proc(5) is the parent; the name before may hold blanks.
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found, waiting = set(), [root_pid]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children[pid]
    return found


def memory_bytes(root_pid: int) -> int:
    """Memory in RAM of a process and its descendants (PSS: what is shared is counted once)."""
    return sum(_proportional_bytes(pid) for pid in tree(root_pid))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


class MemoryWatch:
    """Samples the memory of a process and its descendants; ``peak_bytes`` is the most that it saw."""

    def __init__(self, root_pid: int) -> None:
        self.peak_bytes = 0
        self._root_pid = root_pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Sample until ``stop``."""
        self._thread.start()

    def stop(self) -> None:
        """The last sample is taken here."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(PERIOD_SECONDS)
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self._root_pid))
