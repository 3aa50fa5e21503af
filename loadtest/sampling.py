"""Samples taken once a second during a run: what the service says of itself, and what this machine does."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtest import guard
from loadtest.guard import Target

SERVER_FILE, HOST_FILE = "server.jsonl", "host.jsonl"
PERIOD_SECONDS = 1.0
# The columns of /proc/stat, proc(5); idle and iowait are no work, guests are counted in user and nice.
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class Sampler:
    """Writes samples to a file until it is stopped, one at the end included. An empty sample is left out: a gap."""

    def __init__(self, take: Callable[[], dict[str, Any]], path: Path) -> None:
        self._take, self._path = take, path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(guard.ASK_SECONDS + 1)

    def _run(self) -> None:
        with self._path.open("a") as file:
            is_last = False
            while not is_last:
                is_last = self._ended.is_set()
                if sample := self._take():
                    file.write(json.dumps({"at": time.time(), **sample}) + "\n")
                    file.flush()
                if not is_last:
                    self._ended.wait(PERIOD_SECONDS)


def read(path: Path) -> list[dict[str, Any]]:
    """The samples of a run, in order of time; none where none were taken."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def of_server(target: Target) -> dict[str, Any]:
    """Its memory, processor time and queue; empty where it does not answer."""
    if not (status := guard.told(target, "/status")):
        return {}
    engine = status.get("engine", {})
    processes = (*status.get("processes", []), engine)
    cpu_seconds = [process["cpu_seconds"] for process in processes if "cpu_seconds" in process]
    return {
        "resident_bytes": sum(process.get("resident_bytes", 0) for process in processes),
        "cpu_seconds": round(sum(cpu_seconds), 3) if cpu_seconds else None,
        "cores": status.get("cores"),
        **{name: engine.get(name) for name in ("waiting", "busy_workers", "images_total", "batches_total")},
    }


def of_host(is_shared: bool) -> dict[str, Any]:
    """Load and processor ticks of this machine; empty where there is no /proc. ``is_shared``: with the service."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1 : 1 + len(COLUMNS)]
        load = float(Path("/proc/loadavg").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return {}
    ticks = dict(zip(COLUMNS, map(int, first), strict=False))
    every, steal = sum(ticks.values()), ticks.get("steal", 0)
    busy = every - ticks["idle"] - ticks.get("iowait", 0) - steal
    told = {"load": load, "cores": os.cpu_count(), "ticks": every, "busy_ticks": busy, "steal_ticks": steal}
    return {**told, "is_shared": is_shared}


def is_this_machine(name: str) -> bool:
    """Whether an address belongs to this machine: a socket can be bound to it."""
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
    except OSError:
        return False
    return bool(found)
