"""What ``flask doctor`` looks at. Each check gives findings; none may change anything or wait for long.

A check is told of its :class:`Surroundings` and gives a finding for each thing it looked at. What a check cannot look
at is a warning, not a failure of the doctor.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.config import ROOT, Settings
from app.host.machine import CONTAINER_MARKS
from app.host.permissions import Account

Verdict = Literal["ok", "warn", "fail"]
COMMAND_SECONDS = 5.0
LOG_BYTES = 1 << 20
# Which `make up` copies into the container.
CONTAINER_SECRETS = ROOT / "secrets"
ROOT_WORDS = "this runs as root, who may not look at everything"
ROOT_NEXT = "docker exec without -u, or make shell COMMAND='flask doctor'"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, and what to do where it is not well."""

    subject: str
    verdict: Verdict
    found: str
    next_step: str = ""


@dataclass(frozen=True)
class Surroundings:
    """Where the doctor is. ``settings`` are those of the repository where this start's are wrong.

    ``user``: who serves.
    """

    settings: Settings
    user: Account
    root: Path = ROOT


def is_container() -> bool:
    """Whether we are inside one."""
    return any(mark.exists() for mark in CONTAINER_MARKS)


def is_foreign_root() -> bool:
    """Whether we are root in a container whose service is another user's: without capabilities, who may do little."""
    return is_container() and os.getuid() == 0 and Path("/proc/1").stat().st_uid != 0


Check = Callable[[Surroundings], Iterator[Finding]]


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", found)


def warn(subject: str, found: str, next_step: str) -> Finding:
    """It works, or cannot be looked at; somebody should have a look."""
    return Finding(subject, "warn", found, next_step)


def fail(subject: str, found: str, next_step: str) -> Finding:
    """The service does not start so, or does not do what it should."""
    return Finding(subject, "fail", found, next_step)


def ask(command: Sequence[str | Path], seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
    """Exit status and what a program printed, run in the repository. Raises OSError and subprocess.TimeoutExpired."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def log_end(path: Path | None) -> str | None:
    """The last lines of LOG_FILE; None where there is none."""
    if path is None or not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def megabytes(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
