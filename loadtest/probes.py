"""What the server says of itself while it is loaded: /status once a second, on a connection of its own."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from loadtest import guard
from loadtest.guard import Target
from loadtest.statuses import LoadTestError

FILE_NAME = "server.jsonl"
PERIOD_SECONDS = 1.0


class Probe:
    """Samples the target until it is stopped; a target that does not answer leaves a gap, never an error."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target, self._path = target, folder / FILE_NAME
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(guard.ASK_SECONDS + 1)

    def _run(self) -> None:
        with self._path.open("a") as file:
            while not self._ended.is_set():
                if sample := self._sample():
                    file.write(json.dumps(sample) + "\n")
                    file.flush()
                self._ended.wait(PERIOD_SECONDS)

    def _sample(self) -> dict[str, Any]:
        try:
            status = json.loads(guard.fetch(self._target, "/status"))
        except (LoadTestError, ValueError):
            return {}
        engine = status.get("engine", {})
        processes = status.get("processes", [])
        resident = sum(each.get("resident_bytes", 0) for each in (*processes, engine))
        return {
            "at": time.time(),
            "resident_bytes": resident,
            "cpu_seconds": _cpu_seconds(processes, engine),
            "cores": status.get("cores"),
            "waiting": engine.get("waiting"),
            "busy_workers": engine.get("busy_workers"),
            "images_total": engine.get("images_total"),
            "batches_total": engine.get("batches_total"),
        }


def _cpu_seconds(processes: list[dict[str, Any]], engine: dict[str, Any]) -> float | None:
    """Processor time of all processes so far; None where the server does not tell."""
    told = [each["cpu_seconds"] for each in (*processes, engine) if "cpu_seconds" in each]
    return round(sum(told), 3) if told else None


def read(folder: Path) -> list[dict[str, Any]]:
    """The samples of a run, in order of time."""
    path = folder / FILE_NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
