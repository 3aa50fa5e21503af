"""A sign of life: the jobs' worker writes a small file once a second, and others read how old it is. A leaf."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from app import machine

FILE = "run/jobs.json"
PERIOD_SECONDS = 1.0
# Nobody waits for an image of a job, but an engine that hangs must not be waited for either.
IMAGE_SECONDS = 60.0
# Older than this, it is late.
SILENT_SECONDS = 5.0


@dataclass(frozen=True)
class Heartbeat:
    """What the worker said of itself. ``born``: when it began, see ``machine.born``.

    ``at``: seconds since boot, when it said so. ``busy_seconds``: for how long it had been at its slowest image.
    """

    pid: int
    born: int
    at: float
    busy_seconds: float

    @property
    def is_alive(self) -> bool:
        """Whether the process that said so still runs."""
        return machine.born(self.pid) == self.born

    @property
    def age_seconds(self) -> float:
        """How long ago that was; one from before the last boot is endlessly old."""
        age = _now() - self.at
        return age if age >= 0 else float("inf")


def beat(state_dir: Path, busy_seconds: float) -> None:
    """Say that this process is alive. Raises OSError."""
    said = Heartbeat(os.getpid(), machine.born(os.getpid()) or 0, _now(), busy_seconds)
    path = state_dir / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}.new")
    written.write_text(json.dumps(asdict(said)))
    written.rename(path)


def read(state_dir: Path) -> Heartbeat | None:
    """The last one; None when there has been none, or it cannot be read."""
    try:
        return Heartbeat(**json.loads((state_dir / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _now() -> float:
    # The same clock in every process, which no one can set.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
