"""The operating system's side of a model worker: which Python, which environment, how a process has ended."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess

from app.config import ROOT
from app.host import machine
from app.model_code import leftovers

MEGABYTE = 1024 * 1024
# Of what a model may have, so much may be kept of what it has freed.
KEPT_SHARE = 1 / 16


class Ending:
    """The end of a process that is a child of ours, waited for without reaping it."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, at most so many seconds from now."""
        return bool(self._poll.poll(seconds * 1000))

    def close(self) -> None:
        """The process is not touched."""
        os.close(self._descriptor)


def environment(threads: int, mark: str, memory_mb: int = 0) -> dict[str, str]:
    """All that a model sees of variables: the settings of the service, secrets among them, are nothing to it.

    ``memory_mb``: its limit, 0 for none.
    """
    number = str(threads)
    kept_bytes = min(machine.KEPT_BYTES, int(memory_mb * MEGABYTE * KEPT_SHARE) or machine.KEPT_BYTES)
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        # A crash in C says where.
        "PYTHONFAULTHANDLER": "1",
        leftovers.VARIABLE: mark,
        # As ``machine.keep_freed_memory`` for the engine, and serve.sh for all: what a thread freed goes back at rest.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": str(kept_bytes),
        "MALLOC_MMAP_THRESHOLD_": str(min(machine.KEPT_BLOCK_BYTES, kept_bytes)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": number,
        "OPENBLAS_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
    }


def how_ended(process: subprocess.Popen[bytes]) -> str | None:
    """How a process ended, without reaping it: its status, or minus its signal; None while it runs."""
    if process.returncode is not None:
        return str(process.returncode)
    try:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # The keeper has just reaped it.
        return "unknown"
    if found is None:
        return None
    return str(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)


def status(process: subprocess.Popen[bytes]) -> str:
    """As ``how_ended``, of a process that is about to end."""
    with contextlib.closing(Ending(process.pid)) as ending:
        ending.wait(1.0)
    return how_ended(process) or "unknown"
