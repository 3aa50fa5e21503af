"""Which of our processes are alive: each has a file with its role in ``run/metrics``; the rest is read from /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.host import machine
from app.telemetry import shards

# The engine is asked itself.
ROLES = ("web", "ops", "jobs")
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


def alive(state_dir: Path) -> list[Process]:
    """Web, ops and the jobs' worker, by what the kernel says of those that count into ``run/metrics``."""
    return [Process(sign.pid, sign.role) for sign in shards.signs(state_dir) if sign.role in ROLES]


def of_apache(known: Sequence[Process]) -> list[Process]:
    """The server's own processes: our parent, where it is Apache, and those of its children that are not ``known``."""
    parent = os.getppid()
    try:
        if Path(f"/proc/{parent}/comm").read_text().strip() not in APACHE_NAMES:
            return []
        children = machine.children(parent)
    except OSError:
        # Not Apache's child, or a kernel that does not tell.
        return []
    named = {process.pid for process in known}
    return [Process(pid, "apache") for pid in (parent, *children) if pid not in named]
