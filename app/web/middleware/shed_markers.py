"""Notes for Apache: which callers it can refuse by itself. A file each, named like the caller's address.

A refusal by Python costs Apache's way to it and back. While a caller would be refused anyway, its file lies in
``<STATE_DIR>/run/refused/<slot>/``; Apache looks for it before it passes a request on (apache/conf/admission.conf). The
controller alone decides. With several web processes each has a slot, and Apache refuses only addresses that all refuse.

A notice holds no longer than its process: it is a link to what the kernel shows of that process while it lives, and
Apache asks for a file. While any is up it is also looked at once a second, whatever requests do or do not end.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.storage import file_locks

log = logging.getLogger("cask.web")

FOLDER = "run/refused"
# An address as Apache writes it; anything else names no file.
ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}")
# Under an attack from many addresses Python refuses the rest; its own table must not grow with them.
MAX_CALLERS = 64
# While a notice goes up, requests are on their way already. It goes up early enough for as many as were so of late.
NEWEST_WEIGHT = 0.2
MAX_COMING = 32.0
# How often notices are looked at besides; also until one can be taken down whose file could not be removed.
WATCH_SECONDS = 1.0
# A flood that ended so long ago says nothing of the callers of now.
REMEMBER_SECONDS = 5.0


class ShedMarkers:
    """Who is refused at the moment. Thread-safe.

    ``is_refused`` is asked with a caller's address, whether the caller has a notice already, and how many requests
    are on their way that a notice would come too late for.
    """

    def __init__(
        self,
        folder: Path,
        is_refused: Callable[[str, bool, float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._is_refused = is_refused
        # By caller with a notice: how many requests have come all the same.
        self._callers: dict[str, int] = {}
        self._coming = 0.0
        self._taken_down = -math.inf
        self._clock = clock
        self._lock = threading.Lock()
        self._alive = Path(f"/proc/{os.getpid()}/stat")
        self._watch: threading.Thread | None = None
        self._is_told = False

    def update(self, caller: str) -> None:
        """This caller was let in or refused: put a notice up when the next request need not come so far."""
        if caller in self._callers:
            with self._lock:
                if caller in self._callers:
                    self._callers[caller] += 1
        elif len(self._callers) < MAX_CALLERS and ADDRESS.fullmatch(caller):
            self._update(caller)

    def ended(self) -> None:
        """A request has ended: addresses that are admitted again are let through."""
        for caller in tuple(self._callers):
            self._update(caller)

    def _update(self, caller: str) -> None:
        # Asked under the lock: whatever changes later is followed by an update of its own, so no notice stays behind.
        with self._lock:
            has_notice = caller in self._callers
            is_refused = self._is_refused(caller, has_notice, 0.0 if has_notice else self._expected())
            if is_refused == has_notice:
                return
            try:
                self._write(caller, is_refused=is_refused)
                self._is_told = False
            except OSError as error:
                # Python refuses all the same, only dearer.
                if not self._is_told:
                    log.warning("the shed marker for %s cannot be changed: %s", caller, error)
                self._is_told = True

    def _write(self, caller: str, *, is_refused: bool) -> None:
        path = self._folder / caller
        if is_refused:
            path.unlink(missing_ok=True)
            path.symlink_to(self._alive)
            self._callers[caller] = 0
            if self._watch is None:
                self._watch = threading.Thread(target=self._look_for_long, name="notices", daemon=True)
                self._watch.start()
        else:
            path.unlink(missing_ok=True)
            came, known = self._callers.pop(caller), self._expected()
            self._coming = min(MAX_COMING, known + NEWEST_WEIGHT * (came - known))
            self._taken_down = self._clock()

    def _look_for_long(self) -> None:
        """Until no notice is up."""
        pause = threading.Event()
        while True:
            pause.wait(WATCH_SECONDS)
            self.ended()
            with self._lock:
                if not self._callers:
                    self._watch = None
                    return

    def _expected(self) -> float:
        """How many requests may be on their way that a notice would come too late for."""
        return self._coming if self._clock() - self._taken_down < REMEMBER_SECONDS else 0.0


def claim_slot(state_dir: Path, slots: int) -> tuple[Path, int] | None:
    """An empty folder for this process alone, and the descriptor that keeps it so while open; None: there is none.

    A process that was killed leaves its markers behind; its replacement removes them.
    """
    for number in range(slots):
        folder = state_dir / FOLDER / str(number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = file_locks.take(folder.with_suffix(".lock"), 0o644)
            if lock is None:
                continue
            for path in folder.iterdir():
                path.unlink()
        except OSError:
            continue
        return folder, lock
    return None
