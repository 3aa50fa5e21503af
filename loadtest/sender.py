"""Sends one request, waits for its answer, judges and records it. Runs inside a worker, on gevent."""

from __future__ import annotations

import contextlib
import errno
import json
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from loadtest.oracle import Oracle
from loadtest.request_log import CACHE, GENERATORS_OWN, Outcome, Recorder
from loadtest.scenarios import FOREIGN, NAMES, Request

if TYPE_CHECKING:
    # It imports Locust, which replaces parts of the standard library.
    from loadtest.foreign_users import ForeignUsers

WATCH_SECONDS = 5.0
# Fewer than this in the watched span say too little to end a run.
WATCH_LEAST = 50
# How often a job's caller asks how far it is; so much later than it is done does the caller know.
POLL_SECONDS = 0.05
OPEN_STATES = ("queued", "running")
NOT_ANSWERED = frozenset((Outcome.REFUSED, Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT))
CODE_MOST = 60
BAD = frozenset((Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT))


class Client(Protocol):
    """What sends: exchange.Connections, or who stands for it in a test."""

    def request(self, method: str, path: str, *, body: bytes, headers: dict[str, str]) -> Any: ...


@dataclass(slots=True)
class Reply:
    """What the server said during one request. ``cache``: a number of rows.CACHE; ``job``: the path of its job.

    ``code``: of a problem document, or the name of what broke the exchange.
    """

    status: int = 0
    size: int = 0
    timing: str = ""
    cache: int = 0
    job: str = ""
    code: str = ""


class Sender:
    """Sends one request, waits for its answer, judges and records it."""

    def __init__(
        self,
        client: Client,
        oracle: Oracle,
        assets: dict[str, int],
        recorder: Recorder,
        clock: Callable[[], float],
        timeout_seconds: float,
        guests: ForeignUsers | None = None,
    ) -> None:
        self._client, self._oracle, self._assets = client, oracle, assets
        self._recorder, self._clock = recorder, clock
        self._timeout_seconds = timeout_seconds
        self._recent: deque[tuple[float, bool]] = deque()
        self._recent_bad = 0
        self._guests = guests

    def send(self, request: Request, intended: float) -> Outcome:
        """Send now; ``intended`` is when it was meant to start, in seconds of the clock."""
        sent = self._clock()
        reply = Reply()
        try:
            outcome, words = self._perform(request, reply)
            done = self._clock()
        except (gevent.Timeout, TimeoutError):
            done, outcome, words = self._clock(), Outcome.TIMED_OUT, f"no answer in {self._timeout_seconds:g} s"
            reply.code = "timed out"
        except (OSError, HTTPParseError, HTTPConnectionClosed, ValueError) as error:
            done, outcome, words = self._clock(), Outcome.BROKEN, f"{type(error).__name__}: {error}"
            reply.status, reply.code = 0, what_broke(error)
        picture = request.pictures[0] if request.pictures else 0
        told = (reply.status, picture, request.is_repeated, reply.cache, reply.size, reply.timing)
        self._recorder.add((intended, sent, done, outcome, request.scenario, *told))
        # What this machine has no room for is no reason to protect the target.
        self.note(done, is_bad=outcome in BAD and reply.code not in GENERATORS_OWN)
        if outcome in NOT_ANSWERED:
            self._recorder.refusal(NAMES[request.scenario], reply.status, reply.code)
        if words:
            self._recorder.example(outcome, request, done, words)
        if reply.job:
            # Results take room that the next ones need; nobody waits for this.
            self._forget(reply.job, request)
        return outcome

    def _perform(self, request: Request, reply: Reply) -> tuple[Outcome, str]:
        outcome, words = Outcome.RIGHT, ""
        if request.kind == FOREIGN:
            assert self._guests
            with gevent.Timeout(self._timeout_seconds):
                outcome, words, reply.status, reply.size = self._guests.ask(request.paths[0])
            return outcome, words
        if request.task:
            self._oracle.sent(request.task, request.pictures)
        for path in request.paths:
            body = self._exchange(request.method, path, request.body, request.headers, reply)
            outcome, words = self._judge(request, path, reply, body)
            if outcome != Outcome.RIGHT:
                break
        return outcome, words

    def drop(self, intended: float) -> None:
        """Record an arrival that found no free slot."""
        self._recorder.add((intended, intended, intended, Outcome.DROPPED, 255, 0, 0, 0, 0, 0, ""))
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

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str], reply: Reply) -> bytes:
        # Of the whole exchange: an answer that only trickles ends, too.
        with gevent.Timeout(self._timeout_seconds):
            response = self._client.request(method, path, body=body, headers=headers)
            try:
                # Nothing follows a redirect: another host is another target.
                data = bytes(response.read())
            finally:
                response.release()
        reply.status, reply.timing = response.status_code, response.get("server-timing") or ""
        reply.cache, reply.size = CACHE.get(response.get("x-cache") or "", 0), reply.size + len(data)
        return data

    def _judge(self, request: Request, path: str, reply: Reply, body: bytes) -> tuple[Outcome, str]:
        if reply.status in (429, 503):
            reply.code = problem_code(body)
            return Outcome.REFUSED, ""
        if request.kind == "job" and reply.status == 202:
            return self._follow(request, reply, body)
        if reply.status != 200:
            reply.code = problem_code(body)
            return Outcome.FAILED, f"status {reply.status}: {body[:160].decode(errors='replace')}"
        if request.task:
            return self._oracle.judge(request.task, request.pictures, request.request_id, body, request.kind)
        # The page itself may hold what differs each time; what it is made of may not.
        if path != "/" and zlib.crc32(body) != self._assets[path]:
            return Outcome.WRONG, f"{path} is not what it was at rest"
        return Outcome.RIGHT, ""

    def _follow(self, request: Request, reply: Reply, body: bytes) -> tuple[Outcome, str]:
        """Ask for a job until it is done, then judge its results."""
        until = self._clock() + self._timeout_seconds
        try:
            reply.job = job_path(body)
            while self._clock() < until:
                body = self._exchange("GET", reply.job, b"", follow_headers(request), reply)
                if reply.status != 200:
                    reply.code = problem_code(body)
                    return Outcome.FAILED, f"status {reply.status} of the job: {body[:160].decode(errors='replace')}"
                state = json.loads(body)["state"]
                if state not in OPEN_STATES:
                    if state != "succeeded":
                        return Outcome.FAILED, f"the job is {state}: {body[:160].decode(errors='replace')}"
                    job_id = reply.job.rpartition("/")[2]
                    return self._oracle.judge(request.task, request.pictures, job_id, body, request.kind)
                gevent.sleep(POLL_SECONDS)
        except (ValueError, KeyError, TypeError):
            return Outcome.FAILED, f"no job of ours: {body[:80].decode(errors='replace')}"
        return Outcome.TIMED_OUT, f"the job is still {state} after {self._timeout_seconds:g} s"

    def _forget(self, path: str, request: Request) -> None:
        with contextlib.suppress(OSError, HTTPParseError, HTTPConnectionClosed, gevent.Timeout):
            self._exchange("DELETE", path, b"", follow_headers(request), Reply())


def what_broke(error: Exception) -> str:
    """The exception's name; of an OSError without a name of its own that of its number, such as EMFILE."""
    if type(error) is OSError and error.errno:
        return errno.errorcode.get(error.errno, "OSError")
    return type(error).__name__


def problem_code(body: bytes) -> str:
    """The code of a problem document; empty for another body."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(code)[:CODE_MOST]


def job_path(body: bytes) -> str:
    """Where a job that was taken is asked for. Raises ValueError, KeyError, TypeError for another answer."""
    path = str(json.loads(body)["url"])
    # Behind a proxy's prefix it may stand before it; who sends adds the prefix again.
    _, found, job = path.partition("/v1/jobs/")
    if not found or not path.startswith("/"):
        raise ValueError(path)
    return found + job


def follow_headers(request: Request) -> dict[str, str]:
    """The headers of what follows a request: its own, without what describes its body."""
    return {name: value for name, value in request.headers.items() if name != "Content-Type"}
