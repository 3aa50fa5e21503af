"""What makes a build a good neighbour of the engine that asked for it: it yields to all, and ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from app.runtimes.build import trial

NICE = 19
# The kernel ends this process first when memory is short (proc(5)), and not the engine.
OOM_SCORE_ADJ = "1000"


def begin() -> None:
    """Yield to every other process from now on, and end when stdin closes or SIGTERM comes."""
    os.nice(NICE)
    with contextlib.suppress(OSError):
        # Only what nobody else wants (sched(7)); children inherit it.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ)
    signal.signal(signal.SIGTERM, lambda *_: _end())
    threading.Thread(target=_end_with_stdin, name="parent", daemon=True).start()


def _end_with_stdin() -> None:
    # Not sys.stdin, whose lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    _end()


def _end() -> NoReturn:
    trial.end_all()
    os._exit(1)
