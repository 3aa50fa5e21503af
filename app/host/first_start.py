"""At the start of the service, all its processes want the cores at once: who is waited for comes first."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

# A process that begins so soon after Apache belongs to the start of the service.
START_SECONDS = 10.0
# So long the others come first: on a machine that is never idle they would for ever.
PATIENCE_SECONDS, PERIOD_SECONDS = 0.5, 0.02
# What the engine writes then (app.models.runtime_variant, which would bring 40 ms of imports).
FORMS_FILE = "run/forms.json"
# The last level of nice(2).
LAST = 19


def is_now() -> bool:
    """Whether this process belongs to the start of the service, and replaces no other one."""
    return (_began(os.getpid()) - _began(os.getppid())) / os.sysconf("SC_CLK_TCK") <= START_SECONDS


def step_back(levels: int) -> None:
    """Step back by so many levels of nice(2) with every thread of this process: each has a level of its own (Linux).

    Threads that have stepped back further stay where they are.
    """
    level = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    further = min(LAST, level + levels)
    # Again, for a thread that began meanwhile has the level of the one that began it.
    while further > level and (behind := [thread for thread in _threads() if _level(thread) == level]):
        for thread in behind:
            # One that has ended by now needs none.
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread, further)


def _threads() -> list[int]:
    return [int(each.name) for each in Path("/proc/self/task").iterdir()]


def _level(thread: int) -> int | None:
    try:
        return os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:
        return None


def wait_for_others(state_dir: Path) -> None:
    """Let the processes that callers wait for import first: until models are loaded, or ``PATIENCE_SECONDS``.

    Returns at once in a process that replaces another one. It waits and does not step back: imports in a thread of less
    priority would hold Python's locks while they wait for a core, for half a minute on a busy machine.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    sign = state_dir / FORMS_FILE
    while is_now() and not sign.exists() and time.monotonic() < end:
        time.sleep(PERIOD_SECONDS)


def _began(pid: int) -> int:
    """When a process began, in clock ticks after the machine did (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
