"""HUP or USR1 to Apache's first process asks for a reload (apache/modules/mod_reloads.c); ops begins it."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

from app.host import machine
from app.storage import file_locks
from app.supervision.supervisor import watch

log = logging.getLogger("cask.ops")

ROOT = Path(__file__).resolve().parents[2]
PERIOD_SECONDS = 0.5
# Below Apache's server root: there when a signal came; locked while a reload runs.
ASKED = "reload-asked"
LOCK = "reload.lock"
STANDARD_ERROR = 2


def begin() -> None:
    """Start a reload that outlives this process, which it replaces. Raises OSError."""
    command = [machine.python(), str(ROOT / "apache" / "reload.py")]
    subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=STANDARD_ERROR,
        stderr=STANDARD_ERROR,
        start_new_session=True,
    )


class ReloadRequests:
    """Looks for requests twice a second. Those that come during a reload are one more reload after it."""

    def __init__(self, server_root: Path, begin: Callable[[], None] = begin) -> None:
        self._asked = server_root / ASKED
        self._lock = server_root / LOCK
        self._begin = begin

    def start(self) -> None:
        """Look in a thread until the process ends."""
        watch(self.look, PERIOD_SECONDS, "reloads")

    def look(self) -> None:
        """Begin a reload where one was asked for and none runs. Raises OSError."""
        if not self._asked.exists() or file_locks.is_held(self._lock):
            return
        self._asked.unlink(missing_ok=True)
        log.warning("Apache got SIGHUP or SIGUSR1: reloading as make reload does, which loses no request")
        self._begin()
