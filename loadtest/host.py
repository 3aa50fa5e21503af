"""What this machine did while it sent: load, stolen time, and how busy its cores were, once a second."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

FILE_NAME = "host.jsonl"
PERIOD_SECONDS = 1.0
# The columns of /proc/stat, proc(5); idle and iowait are no work, guests are counted in user and nice.
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class Watch:
    """Samples this machine until it is stopped; a system without /proc leaves no samples."""

    def __init__(self, target_host: str, folder: Path) -> None:
        self._path, self._is_shared = folder / FILE_NAME, is_here(target_host)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open("a") as file:
            is_over = False
            while not is_over:
                # Once more at the end, so that a short run has two.
                is_over = self._ended.wait(PERIOD_SECONDS) if file.tell() else False
                if sample := _sample():
                    file.write(json.dumps({**sample, "is_shared": self._is_shared}) + "\n")
                    file.flush()
                elif not file.tell():
                    return


def _sample() -> dict[str, Any]:
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1 : 1 + len(COLUMNS)]
        load = float(Path("/proc/loadavg").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return {}
    ticks = dict(zip(COLUMNS, map(int, first), strict=False))
    every = sum(ticks.values())
    idle = ticks["idle"] + ticks.get("iowait", 0)
    return {
        "at": time.time(),
        "load": load,
        "cores": os.cpu_count(),
        "ticks": every,
        "busy_ticks": every - idle - ticks.get("steal", 0),
        "steal_ticks": ticks.get("steal", 0),
    }


def is_here(name: str) -> bool:
    """Whether an address belongs to this machine: a socket can be bound to it."""
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
    except OSError:
        return False
    return bool(found)


def read(folder: Path) -> list[dict[str, Any]]:
    """The samples of a run, in order of time."""
    path = folder / FILE_NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
