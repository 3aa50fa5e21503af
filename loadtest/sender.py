"""Sends the requests of a turn, waits for the answers, and records how it ended. Runs inside a worker, on gevent."""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from loadtest.outcomes import Outcome
from loadtest.request_log import CACHE, GENERATORS_OWN, Recorder
from loadtest.turns import Request, Turn

WATCH_SECONDS = 5.0
# Fewer than this in the watched span say too little to end a run.
WATCH_LEAST = 50
NOT_ANSWERED = frozenset((Outcome.REFUSED, Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT))
BREAKS = (OSError, HTTPParseError, HTTPConnectionClosed, ValueError)
BAD = frozenset((Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT))


class Client(Protocol):
    """What sends: connections.Connections, or who stands for it in a test."""

    def request(self, method: str, path: str, *, body: bytes, headers: dict[str, str]) -> Any: ...


@dataclass(slots=True)
class Reply:
    """What the server said during one turn. ``cache``: a number of request_log.CACHE.

    ``is_new``: none of its bytes had been sent before.
    """

    status: int = 0
    size: int = 0
    timing: str = ""
    cache: int = 0
    is_new: bool = False


class Sender:
    """Performs turns on kept connections, at most ``timeout_seconds`` each, and records them."""

    def __init__(self, client: Client, recorder: Recorder, clock: Callable[[], float], timeout_seconds: float) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._timeout_seconds = timeout_seconds
        self._recent: deque[tuple[float, bool]] = deque()
        self._recent_bad = 0

    def send(self, turn: Turn, intended: float) -> Outcome:
        """Send now; ``intended`` is when it was meant to start, in seconds of the clock."""
        sent, reply, turn.sleep = self._clock(), Reply(), gevent.sleep

        def exchange(request: Request) -> tuple[int, Mapping[str, str], bytes]:
            return self._exchange(request, reply)

        try:
            # Of the whole turn: an answer that only trickles ends, too.
            with gevent.Timeout(self._timeout_seconds):
                outcome, words, code = turn.perform(exchange)
        except (gevent.Timeout, TimeoutError):
            outcome, words, code = Outcome.TIMED_OUT, f"no answer in {self._timeout_seconds:g} s", "timed out"
        except BREAKS as error:
            outcome, words, code = Outcome.BROKEN, f"{type(error).__name__}: {error}", what_broke(error)
            reply.status = 0
        done = self._clock()
        told = (turn.status or reply.status, not reply.is_new, reply.cache, turn.size or reply.size, reply.timing)
        self._recorder.add((intended, sent, done, outcome, turn.index, *told))
        # What this machine has no room for is no reason to protect the target.
        self.note(done, is_bad=outcome in BAD and code not in GENERATORS_OWN)
        if outcome in NOT_ANSWERED:
            self._recorder.refusal(turn.scenario.name, turn.status or reply.status, code)
        if turn.metrics:
            self._recorder.metrics(intended, turn.metrics)
        if words:
            self._recorder.example(outcome, turn.id, done, words)
        for request in turn.afterwards:
            with contextlib.suppress(*BREAKS, gevent.Timeout), gevent.Timeout(self._timeout_seconds):
                self._exchange(request, reply)
        return outcome

    def drop(self, turn: Turn, intended: float) -> None:
        """Record an arrival that found no free slot."""
        self._recorder.add((intended, intended, intended, Outcome.DROPPED, turn.index, 0, 0, 0, 0, ""))
        self.note(self._clock(), is_bad=True)

    def note(self, moment: float, *, is_bad: bool) -> None:
        """Remember how the last seconds went."""
        self._recent.append((moment, is_bad))
        self._recent_bad += is_bad
        while self._recent[0][0] < moment - WATCH_SECONDS:
            self._recent_bad -= self._recent.popleft()[1]

    def bad_share(self) -> float:
        """The share of the last seconds' requests that failed, broke, timed out or were dropped; not refusals."""
        if len(self._recent) < WATCH_LEAST:
            return 0.0
        return self._recent_bad / len(self._recent)

    def _exchange(self, request: Request, reply: Reply) -> tuple[int, Mapping[str, str], bytes]:
        response = self._client.request(request.method, request.path, body=request.body, headers=request.headers)
        try:
            # Nothing follows a redirect: another host is another target.
            data = bytes(response.read())
        finally:
            response.release()
        reply.status, reply.timing = response.status_code, response.get("server-timing") or ""
        reply.cache, reply.size = CACHE.get(response.get("x-cache") or "", 0), reply.size + len(data)
        reply.is_new = request.is_new
        return response.status_code, response.info(), data


def what_broke(error: Exception) -> str:
    """The exception's name; of an OSError without a name of its own that of its number, such as EMFILE."""
    if type(error) is OSError and error.errno:
        return errno.errorcode.get(error.errno, "OSError")
    return type(error).__name__
