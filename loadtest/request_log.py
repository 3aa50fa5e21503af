"""What became of each request: one fixed row, written by the workers as they go, read whole at the end."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.storage import json_files
from loadtest.outcomes import SCENARIO_BROKE, Outcome

# Why an exchange broke that the server had no part in: no file, port or memory for a socket, no name, no request made.
GENERATORS_OWN = frozenset(("EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM", "gaierror", SCENARIO_BROKE))

ROW = np.dtype(
    [
        ("intended", "f8"),  # seconds from the beginning of the run
        ("sent", "f8"),
        ("done", "f8"),
        ("outcome", "u1"),
        ("scenario", "u1"),
        ("status", "u2"),
        ("repeated", "u1"),  # 1: bytes that may have been sent before, so a cache may answer
        ("cache", "u1"),  # the server's X-Cache: see CACHE
        ("bytes", "u4"),
        ("decode_ms", "f4"),  # the server's own account, NaN where it gives none
        ("queue_ms", "f4"),
        ("predict_ms", "f4"),
        ("engine_ms", "f4"),
        ("app_ms", "f4"),
    ]
)

# X-Cache → its number in a row; 0 where the server says nothing.
CACHE = {"": 0, "miss": 1, "hit": 2, "partial": 3}


EXAMPLES_MOST = 25
TIMING = re.compile(r"(decode|queue|predict|engine|app);dur=([0-9.]+)")
TIMINGS = ("decode", "queue", "predict", "engine", "app")
UNKNOWN_MS = float("nan")
UNKNOWN_TIMINGS = (UNKNOWN_MS,) * len(TIMINGS)


class Recorder:
    """Rows of one worker, to memory first and to its file four times a second."""

    def __init__(self, folder: Path, worker: int) -> None:
        self._worker, self._folder = worker, folder
        self._file = (folder / f"rows-{worker}.bin").open("wb", buffering=0)
        # Opened while there is a file left: connections may take all others.
        self._examples_file = (folder / f"examples-{worker}.jsonl").open("a", buffering=1)
        self._waiting: list[tuple[Any, ...]] = []
        self._examples: dict[Outcome, int] = {}
        self._refusals: Counter[tuple[str, int, str]] = Counter()
        self._metrics_file = (folder / f"metrics-{worker}.jsonl").open("a", buffering=1 << 16)
        self.rows = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """Keep one row: as ROW has it, but for the times, which come last as the server's header tells them."""
        self._waiting.append(row)
        self.rows += 1

    def example(self, outcome: Outcome, request_id: str, moment: float, words: str) -> None:
        """Keep what was wrong with an answer, for the report; the first few of each kind."""
        count = self._examples.get(outcome, 0)
        self._examples[outcome] = count + 1
        if count < EXAMPLES_MOST:
            row = {"outcome": outcome.name, "request_id": request_id, "at": round(moment, 3), "what": words}
            self._examples_file.write(json.dumps(row) + "\n")

    def metrics(self, intended: float, noted: Sequence[tuple[str, float]]) -> None:
        """Keep figures that a check noted of the request that was meant to start then."""
        for name, value in noted:
            self._metrics_file.write(f"{json.dumps([intended, name, value])}\n")

    def refusal(self, scenario: str, status: int, code: str) -> None:
        """Count a request that was not answered with success, by status and problem code, or by its exception."""
        self._refusals[scenario, status, code] += 1

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            rows = [(*row[:-1], *read_timings(row[-1])) for row in waiting]
            self._file.write(np.array(rows, ROW).tobytes())

    def close(self, summary: dict[str, Any]) -> None:
        """Write all, and say that this worker is done; who does not say so was lost."""
        self.flush()
        self._file.close()
        self._examples_file.close()
        self._metrics_file.close()
        table = {"worker": self._worker, "rows": self.rows, "refusals": refusal_rows(self._refusals), **summary}
        json_files.replace(self._folder / f"worker-{self._worker}.json", table)


def refusal_rows(counts: Counter[tuple[str, int, str]]) -> list[dict[str, Any]]:
    """Counts of refusals by scenario, status and problem code as JSON has them, the commonest first."""
    return [
        {"scenario": scenario, "status": status, "code": code, "count": count}
        for (scenario, status, code), count in counts.most_common()
    ]


def read_timings(header: str) -> tuple[float, ...]:
    """Milliseconds that the server tells, in the order of TIMINGS; NaN for what it does not (W3C Server Timing)."""
    if not header:
        return UNKNOWN_TIMINGS
    told = dict(TIMING.findall(header))
    return tuple(float(told[name]) if name in told else UNKNOWN_MS for name in TIMINGS)


@dataclass(frozen=True)
class Record:
    """All rows of a run, in the order of their intended start, and what each worker said at its end."""

    rows: np.ndarray
    workers: list[dict[str, Any]]
    expected_workers: int
    # Name → [intended, value], of figures that checks noted.
    metrics: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def lost_workers(self) -> int:
        """Workers that never said that they were done."""
        return self.expected_workers - len(self.workers)

    @property
    def began_at(self) -> float | None:
        """The moment of the wall clock from which rows count; None where no worker said."""
        return min((float(each["began_at"]) for each in self.workers if "began_at" in each), default=None)


def read(folder: Path, expected_workers: int) -> Record:
    """Everything that the workers of a run have written so far."""
    parts = [read_one(path) for path in sorted(folder.glob("rows-*.bin"))]
    rows = np.concatenate(parts) if parts else np.empty(0, ROW)
    workers = [json.loads(path.read_text()) for path in sorted(folder.glob("worker-*.json"))]
    return Record(rows[np.argsort(rows["intended"], kind="stable")], workers, expected_workers, _metrics(folder))


def _metrics(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.glob("metrics-*.jsonl")):
        # Of a worker that is at work the last line may not be whole.
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                intended, name, value = json.loads(line)
                found.setdefault(name, []).append((intended, value))
    return {name: np.array(sorted(rows)) for name, rows in found.items()}


def examples(folder: Path) -> list[dict[str, Any]]:
    """Wrong and mixed-up answers that the workers kept, and the first failures."""
    lines = [line for path in sorted(folder.glob("examples-*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def read_one(path: Path) -> np.ndarray:
    """The whole rows of one worker's file, as far as it has written."""
    data = path.read_bytes()
    # A killed worker may leave half a row.
    return np.frombuffer(data[: len(data) - len(data) % ROW.itemsize], ROW)


def response_ms(rows: np.ndarray) -> np.ndarray:
    """What callers felt: from the intended start, in milliseconds; infinite for who got no answer."""
    answered = np.isin(rows["outcome"], (Outcome.RIGHT, Outcome.WRONG, Outcome.MIXED_UP))
    return np.where(answered, (rows["done"] - rows["intended"]) * 1000, np.inf)


def service_ms(rows: np.ndarray) -> np.ndarray:
    """From sending to the last byte, in milliseconds: what a tool that waits its turn would have seen."""
    return (rows["done"] - rows["sent"]) * 1000
