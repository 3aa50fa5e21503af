"""Processes that a model's process has left behind: found by a mark in their environment, whatever session they are in.

They outlive it where they began a session of their own, and where the engine itself was killed. Each mark names the
folder, the engine with its moment of start, and a number: of another engine that lives, none is touched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.host import machine

VARIABLE = "CASK_MODEL_PROCESS"
# Each look may find children that were made since the last one.
LOOKS = 5
# So long a process may take from its birth until its environment can be read: the kernel writes that last.
BEGINNING_SECONDS, LOOK_SECONDS = 2.0, 0.01
_numbers = itertools.count()


def mark(folder: Path) -> str:
    """One for each process of a model."""
    return f"{folder}|{_engine(os.getpid())}|{next(_numbers)}"


def end(own: str) -> None:
    """End what carries this very mark."""
    _end(lambda found: found == own)


def end_of_dead_engines(folder: Path) -> None:
    """End what processes of this model left behind whose engine has died."""
    _end(lambda found: found.startswith(f"{folder}|") and not _is_alive(found.split("|")[-2]))


def _end(is_meant: Callable[[str], bool]) -> None:
    for _ in range(LOOKS):
        found = [pid for pid, carried in _marked() if is_meant(carried)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _marked() -> Iterator[tuple[int, str]]:
    """Processes of ours, in our own namespace of numbers, with the mark that they carry."""
    here = _namespace("self")
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - pathlib costs three times as much
        with contextlib.suppress(OSError):
            for each in _environment(name).split(b"\0"):
                key, _, value = each.partition(b"=")
                if key == VARIABLE.encode() and _namespace(name) == here:
                    yield int(name), value.decode(errors="replace")


def _environment(pid: str) -> bytes:
    """Of a process that begins, once it can be read. Raises OSError."""
    path = Path(f"/proc/{pid}/environ")
    while not (found := path.read_bytes()) and _begins(pid):
        time.sleep(LOOK_SECONDS)
    return found


def _begins(pid: str) -> bool:
    """Whether it is young. Raises OSError for one that runs no program: it has ended, or is the kernel's own."""
    os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - only whether it is there
    ticks = machine.born(int(pid))
    born_seconds = (ticks or 0) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - born_seconds < BEGINNING_SECONDS


def _namespace(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - the text is what counts, it is no path


def _engine(pid: int) -> str:
    return f"{pid}.{machine.born(pid)}"


def _is_alive(engine: str) -> bool:
    pid = engine.partition(".")[0]
    return pid.isdecimal() and _engine(int(pid)) == engine
