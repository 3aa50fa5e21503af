"""At the start of the service, all its processes want the cores at once: who is waited for comes first."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from pathlib import Path

# Levels of nice(2) by which imports step back, as the worker of the jobs does.
NICE = 10
# A process that begins so soon after Apache belongs to the start of the service.
START_SECONDS = 10.0
# So long the others come first, and what is being imported then: on a machine that is never idle they would for ever.
PATIENCE_SECONDS = 0.5
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


def import_behind(*modules: str) -> None:
    """Import modules behind the other processes of this start; as usual where this process replaces another one.

    In a thread of its own, for a level of nice(2) is a thread's (Linux), and nobody but root may take it back. What is
    not imported within ``PATIENCE_SECONDS`` is left to the caller, so name small modules before those that need them.
    """
    if not is_now():
        return
    is_over = threading.Event()
    helper = threading.Thread(target=_import_all, args=(modules, is_over), name="imports")
    helper.start()
    helper.join(PATIENCE_SECONDS)
    is_over.set()


def _import_all(modules: tuple[str, ...], is_over: threading.Event) -> None:
    own = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICE)
    # What is wrong with one is told where it is imported again.
    with contextlib.suppress(Exception):
        for name in modules:
            if is_over.is_set():
                return
            importlib.import_module(name)


def _began(pid: int) -> int:
    """When a process began, in clock ticks after the machine did (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
