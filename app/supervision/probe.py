"""Asks for an answer of the web processes through Apache, twice a second: ready means that requests are answered."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.supervision.supervisor import watch

# Answered before everything else in the web processes; open to this machine only (apache/conf/ops.conf).
PATH = "/_alive"
PERIOD_SECONDS = 0.5
TIMEOUT_SECONDS = 1.5
# So long without any answer, and callers hear of it.
TELL_SECONDS = 1.75


class Probe:
    """When the web processes last answered: this probe, or anybody else."""

    def __init__(
        self, ask: Callable[[], None], answered: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``ask`` raises OSError without an answer. ``answered``: how many requests all web processes have answered:
        under overload a probe may wait in line while others are served.
        """
        self._ask = ask
        self._answered = answered
        self._clock = clock
        self._seen = -1
        self._proved_at = clock()

    def start(self) -> None:
        """Ask in a thread until the process ends."""
        watch(self.look, PERIOD_SECONDS, "probe")

    def look(self) -> None:
        """Ask once."""
        # With ssl, 3 MB: the engine, which watches too, asks nobody.
        import http.client

        try:
            self._ask()
        except (OSError, http.client.HTTPException):
            return
        self._proved_at = self._clock()

    def troubles(self) -> list[str]:
        """What is wrong at the moment, in words; empty when all is well."""
        answered = self._answered()
        if answered != self._seen:
            self._seen, self._proved_at = answered, self._clock()
        seconds = self._clock() - self._proved_at
        return [f"web: no request was answered for {seconds:.1f} s"] if seconds > TELL_SECONDS else []


def here(host: str) -> str:
    """Where to ask a server that listens on an address: listening everywhere is listening here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def ask(host: str, port: int) -> None:
    """One request of its own connection: to take it is part of what is asked. Raises OSError, HTTPException."""
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        if answer.status != http.client.NO_CONTENT:
            raise ConnectionError(f"{PATH} answered {answer.status}")
    finally:
        connection.close()
