"""Whether a store or another service is used at the moment. One that fails is left alone until it was found well, so
that its trouble costs one request a moment, and no request an error. A leaf.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")

log = logging.getLogger("cask.circuit_breaker")

PAUSE_SECONDS = 2.0
# On a machine without a free core a store may look slow again and again, for a moment each.
LOG_PERIOD_SECONDS = 10.0
# In one outage; an address or a number in the words does not make another failure of it.
MAX_LOGGED = 8


class CircuitBreaker:
    """closed: it is used. open: it is left alone. half-open: one tries whether it is well again. Thread-safe.

    With ``probe`` a thread tries, beside the requests; without, the first caller after the pause does.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], object] | None = None,
        *,
        failures: int = 1,
        pause_seconds: float = PAUSE_SECONDS,
        is_open: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``name``: for the log. ``probe`` raises, or says False, while it is not well. ``failures``: so many in a row
        open it. ``is_open``: it is not used before it was found well.
        """
        self._name = name
        self._probe = probe
        self._most_failures = failures
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._try_at = -math.inf
        self._logged: set[str] = set()
        self._logged_at = -math.inf
        self._failures = 0
        self.state: Literal["closed", "open", "half-open"] = "open" if is_open else "closed"

    @property
    def rest_seconds(self) -> float:
        """For how long it is left alone at least."""
        return 0.0 if self.state == "closed" else max(0.0, self._try_at - self._clock())

    def allows(self) -> bool:
        """Whether the caller may use it; then the caller says how it went."""
        if self.state == "closed":
            return True
        with self._lock:
            if self._probe is not None:
                self._start()
            elif self._clock() >= self._try_at:
                # This one tries; the others wait for what it finds.
                self.state, self._try_at = "half-open", self._clock() + self._pause_seconds
                return True
        return False

    def call(self, ask: Callable[[], T], slow_seconds: float = math.inf) -> T | None:
        """What it answers; None where it is left alone or fails. Never raises.

        An answer that took longer than ``slow_seconds`` is taken, and counts as a failure.
        """
        if not self.allows():
            return None
        began = self._clock()
        try:
            found = ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, no request fails for it
            self.note_failure(error)
            return None
        seconds = self._clock() - began
        if seconds > slow_seconds:
            self.note_failure(f"it took {seconds:.2f} s")
        else:
            self.note_success()
        return found

    def note_success(self) -> None:
        """It did what it was asked. Where there is a probe, only that closes it."""
        if self._failures and (self._probe is None or self.state == "closed"):
            self._close()

    def note_failure(self, trouble: Exception | str) -> None:
        """It could not be reached, answered too late, or not as it should."""
        words = trouble if isinstance(trouble, str) else f"{type(trouble).__name__}: {trouble}"
        with self._lock:
            self._failures += 1
            if self._failures < self._most_failures and self.state == "closed":
                return
            now = self._clock()
            if self._probe is None:
                self._try_at = now + self._pause_seconds
            self.state = "open"
            is_news = self._is_news(words, now)
            self._start()
        if is_news:
            log.warning("%s is not used until it works again: %s", self._name, words)

    def probe(self) -> None:
        """See whether it is well again. Never raises."""
        if self._probe is None:
            return
        try:
            is_well = self._probe() is not False
        except Exception as error:  # noqa: BLE001 - whatever it is, it is still not well
            self.note_failure(error)
            is_well = False
        self._try_at = self._clock() + self._pause_seconds
        if is_well:
            self._close()

    def _close(self) -> None:
        with self._lock:
            self.state, self._failures = "closed", 0
            was_logged = bool(self._logged)
            self._logged.clear()
        if was_logged:
            log.warning("%s is used again", self._name)

    def _is_news(self, words: str, now: float) -> bool:
        """Whether this outage has not said so yet, and is not one of many short ones."""
        key = re.sub(r"[0-9]+", "#", words)
        if key in self._logged or len(self._logged) >= MAX_LOGGED:
            return False
        if not self._logged and now - self._logged_at <= LOG_PERIOD_SECONDS:
            return False
        self._logged.add(key)
        self._logged_at = now
        return True

    def _start(self) -> None:
        # Not alive either in the child of a fork.
        if self._probe is not None and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name=f"probe of {self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self.state != "closed":
            # At once after the first failure, which may have been of a moment; then now and then.
            time.sleep(self.rest_seconds)
            self.probe()
