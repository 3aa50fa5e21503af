"""The load generator stands for callers on other machines: it is not to wait for the server's threads.

Root may let it go first; without that right it takes its turn, and latencies hold some of its own waiting.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FIRST = -10
# Linux groups processes by session (sched(7), "The autogroup feature"); a nice value counts inside of a group only.
GROUP = Path("/proc/self/autogroup")


def take() -> bool:
    """Go first from now on. Returns False where that is not allowed."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)
        GROUP.write_text(str(FIRST))
    except OSError:
        return False
    return True


def give_back() -> None:
    """What the generator starts runs as everybody else. Called in the child, in a session of its own."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        GROUP.write_text("0")
