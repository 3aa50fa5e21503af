"""Looks at the signs of life of other processes twice a second; ends who hangs. Apache starts what is missing.

Whom it ends, it knows from shared memory and from the kernel: no fault of theirs takes that away.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.host import machine
from app.supervision import pulse
from app.telemetry.shards import LOADING, STOPPING, Sign

log = logging.getLogger("cask.ops")

PERIOD_SECONDS = 0.5
# Since the last look at most so much counts: a machine that slept, or a paused container, has not been silent.
MOST_SPAN_SECONDS = 1.0
# From here on readiness tells; /readyz is to know within two seconds.
TELL_SECONDS = 1.25
# A stopped daemon may hold what its siblings need to take the next request, so it is not waited for.
STOPPED_SECONDS = 2.0
# Reading libraries from a slow disk holds Python's lock.
LOADING_SECONDS = 60.0
# The engine and the jobs' worker hold nobody else up: they are given the whole time.
QUICK_ROLES = frozenset({"web", "ops", "httpd"})


def kill(pid: int) -> None:
    """End it at once: who is stopped or holds Python's lock hears no other signal. Raises OSError."""
    os.kill(pid, signal.SIGKILL)


@dataclass
class _Seen:
    """What was seen of one process: for how long it has been silent, and stopped; whether it was ended."""

    sign: Sign
    silent_seconds: float = 0.0
    stopped_seconds: float = 0.0
    is_ended: bool = False


class Supervisor:
    """Over the processes whose signs ``read`` returns, and ``others``, that give none but can be stopped."""

    def __init__(
        self,
        read: Callable[[], list[Sign]],
        hang_seconds: float,
        *,
        others: Callable[[Collection[int]], list[int]] = lambda known: [],
        clock: Callable[[], float] = time.monotonic,
        is_stopped: Callable[[int], bool] = machine.is_stopped,
        kill: Callable[[int], None] = kill,
        note: Callable[[int], None] = lambda pid: None,
        tell: Callable[[bool], None] = lambda is_well: None,
    ) -> None:
        """``others``: processes of Apache besides the ``known``. ``note`` is told whom it ends: the process that takes
        the place counts why. ``tell`` is told with each look whether all are well.
        """
        self._read = read
        self._hang_seconds = hang_seconds
        self._others = others
        self._clock = clock
        self._is_stopped = is_stopped
        self._kill = kill
        self._note = note
        self._tell = tell
        self._looked_at = clock()
        self._seen: dict[tuple[int, int], _Seen] = {}

    def start(self) -> None:
        """Look in a thread until the process ends."""
        watch(self.look, PERIOD_SECONDS, "supervisor")

    def look(self) -> None:
        """One look; ends who was stopped, silent or stuck for too long."""
        now = self._clock()
        span, self._looked_at = min(now - self._looked_at, MOST_SPAN_SECONDS), now
        signs = self._read()
        signs += [Sign("httpd", pid, 0, 0, 0.0, 0, 0) for pid in self._others({sign.pid for sign in signs})]
        self._seen = {(sign.pid, sign.born): self._now_seen(sign, span) for sign in signs}
        self._tell(not self.troubles())
        for seen in self._seen.values():
            reason = self._reason(seen)
            if reason and not seen.is_ended:
                seen.is_ended = True
                end(seen.sign.role, seen.sign.pid, reason, self._kill, self._note)

    def troubles(self) -> list[str]:
        """Who is not well at the moment, in words, without the jobs' worker: callers who wait need it not."""
        return [
            f"{seen.sign.role}: process {seen.sign.pid} {words}"
            for seen in list(self._seen.values())
            if seen.sign.role != "jobs" and (words := _words(seen, TELL_SECONDS, TELL_SECONDS))
        ]

    def pid(self, role: str) -> int | None:
        """A living process of this role that is not about to end by itself."""
        signs = [sign for sign in self._read() if sign.role == role and sign.mood != STOPPING]
        return signs[-1].pid if signs else None

    def _now_seen(self, sign: Sign, span: float) -> _Seen:
        before = self._seen.get((sign.pid, sign.born))
        if before is None:
            return _Seen(sign)
        # Before its first sign it starts, and Apache watches over that.
        is_silent = sign.beat == before.sign.beat and sign.beat != 0
        return _Seen(
            sign,
            before.silent_seconds + span if is_silent else 0.0,
            before.stopped_seconds + span if self._is_stopped(sign.pid) else 0.0,
            before.is_ended,
        )

    def _reason(self, seen: _Seen) -> str:
        if seen.sign.mood == STOPPING:
            return ""
        if seen.sign.role in QUICK_ROLES and seen.stopped_seconds >= min(STOPPED_SECONDS, self._hang_seconds):
            return _words(seen, 0.0, self._hang_seconds)
        patience = max(LOADING_SECONDS, self._hang_seconds) if seen.sign.mood == LOADING else self._hang_seconds
        return _words(seen, float("inf"), patience)


def _words(seen: _Seen, stopped_seconds: float, seconds: float) -> str:
    """What is wrong with it for at least so long; empty when nothing is."""
    if seen.stopped_seconds > stopped_seconds:
        return f"has been stopped for {seen.stopped_seconds:.1f} s"
    if seen.silent_seconds >= seconds:
        return f"has given no sign of life for {seen.silent_seconds:.1f} s"
    if seen.sign.stuck_seconds >= seconds:
        return f"has made no progress for {seen.sign.stuck_seconds:.1f} s"
    return ""


def end(role: str, pid: int, reason: str, kill: Callable[[int], None], note: Callable[[int], None]) -> None:
    """End a process whose place Apache fills; ``note`` is told first. One that cannot be ended is logged."""
    log.error("ending the %s process %d: it %s; Apache starts a new one", role, pid, reason)
    note(pid)
    try:
        kill(pid)
    except ProcessLookupError:
        log.info("the %s process %d had already ended", role, pid)
    except OSError as error:
        log.error("the %s process %d cannot be ended: %s", role, pid, error)  # noqa: TRY400


def watch(look: Callable[[], None], period_seconds: float, name: str) -> None:
    """Look again and again in a thread of this name, until the process ends."""
    threading.Thread(target=_watch, args=(look, period_seconds), name=name, daemon=True).start()


def _watch(look: Callable[[], None], period_seconds: float) -> None:
    while True:
        time.sleep(period_seconds)
        # Where cores are short, a thread that looks at much waits for one nearly all the time.
        pulse.begin()
        try:
            look()
        except Exception:
            log.exception("the watchdog failed; will retry")
