"""The open model: requests start when they are meant to, whatever the server does. Runs inside a worker, on gevent."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import re
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gevent
import numpy as np
from gevent.pool import Pool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from loadtest.oracle import Oracle
from loadtest.precise_timer import Timer
from loadtest.request_log import CACHE, GENERATORS_OWN, ROW, Outcome
from loadtest.scenarios import FOREIGN, NAMES, Caller, Request

if TYPE_CHECKING:
    # It imports Locust, which replaces parts of the standard library.
    from loadtest.foreign_users import ForeignUsers

FLUSH_SECONDS = 0.25
EXAMPLES_MOST = 25
AHEAD = 16
WATCH_SECONDS = 5.0
REFUSED_PAUSE_SECONDS = 0.05
# Fewer than this in the watched span say too little to end a run.
WATCH_LEAST = 50
TIMING = re.compile(r"(decode|queue|predict|engine|app);dur=([0-9.]+)")
TIMINGS = ("decode", "queue", "predict", "engine", "app")
UNKNOWN_MS = float("nan")
UNKNOWN_TIMINGS = (UNKNOWN_MS,) * len(TIMINGS)
# How often a job's caller asks how far it is; so much later than it is done does the caller know.
POLL_SECONDS = 0.05
OPEN_STATES = ("queued", "running")
NOT_ANSWERED = frozenset((Outcome.REFUSED, Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT))
CODE_MOST = 60
BAD = frozenset((Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT))


class Client(Protocol):
    """What sends: exchange.Connections, or who stands for it in a test."""

    def request(self, method: str, path: str, *, body: bytes, headers: dict[str, str]) -> Any: ...


class Recorder:
    """Rows of one worker, to memory first and to its file four times a second."""

    def __init__(self, folder: Path, worker: int) -> None:
        self._worker, self._folder = worker, folder
        self._file = (folder / f"rows-{worker}.bin").open("wb", buffering=0)
        # Opened while there is a file left: connections may take all others.
        self._examples_file = (folder / f"examples-{worker}.jsonl").open("a", buffering=1)
        self._waiting: list[tuple[Any, ...]] = []
        self._examples: dict[Outcome, int] = {}
        self._refusals: Counter[tuple[str, int, str]] = Counter()
        self.rows = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """Keep one row: as rows.ROW has it, but for the times, which come last as the server's header tells them."""
        self._waiting.append(row)
        self.rows += 1

    def example(self, outcome: Outcome, request: Request, moment: float, words: str) -> None:
        """Keep what was wrong with an answer, for the report; the first few of each kind."""
        count = self._examples.get(outcome, 0)
        self._examples[outcome] = count + 1
        if count < EXAMPLES_MOST:
            row = {"outcome": outcome.name, "request_id": request.request_id, "at": round(moment, 3), "what": words}
            self._examples_file.write(json.dumps(row) + "\n")

    def refusal(self, scenario: str, status: int, code: str) -> None:
        """Count a request that was not answered with success, by status and problem code, or by its exception."""
        self._refusals[scenario, status, code] += 1

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            rows = [(*row[:-1], *read_timings(row[-1])) for row in waiting]
            self._file.write(np.array(rows, ROW).tobytes())

    def close(self, summary: dict[str, Any]) -> None:
        """Write all, and say that this worker is done; who does not say so was lost."""
        self.flush()
        self._file.close()
        self._examples_file.close()
        done = self._folder / f"worker-{self._worker}.json"
        whole = done.with_suffix(".new")
        refusals = [
            {"scenario": scenario, "status": status, "code": code, "count": count}
            for (scenario, status, code), count in self._refusals.items()
        ]
        whole.write_text(json.dumps({"worker": self._worker, "rows": self.rows, "refusals": refusals, **summary}))
        whole.rename(done)


@dataclass(slots=True)
class Said:
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
        tell: Callable[[Request, float, int, str], None] | None = None,
        guests: ForeignUsers | None = None,
    ) -> None:
        self._client, self._oracle, self._assets = client, oracle, assets
        self._recorder, self._clock = recorder, clock
        self._timeout_seconds, self._tell = timeout_seconds, tell
        self._recent: deque[tuple[float, bool]] = deque()
        self._recent_bad = 0
        self._guests = guests

    def send(self, request: Request, intended: float) -> Outcome:
        """Send now; ``intended`` is when it was meant to start, in seconds of the clock."""
        sent = self._clock()
        said = Said()
        try:
            outcome, words = self._perform(request, said)
            done = self._clock()
        except (gevent.Timeout, TimeoutError):
            done, outcome, words = self._clock(), Outcome.TIMED_OUT, f"no answer in {self._timeout_seconds:g} s"
            said.code = "timed out"
        except (OSError, HTTPParseError, HTTPConnectionClosed, ValueError) as error:
            done, outcome, words = self._clock(), Outcome.BROKEN, f"{type(error).__name__}: {error}"
            said.status, said.code = 0, what_broke(error)
        picture = request.pictures[0] if request.pictures else 0
        told = (said.status, picture, request.is_repeated, said.cache, said.size, said.timing)
        self._recorder.add((intended, sent, done, outcome, request.scenario, *told))
        # What this machine has no room for is no reason to protect the target.
        self.note(done, is_bad=outcome in BAD and said.code not in GENERATORS_OWN)
        if outcome in NOT_ANSWERED:
            self._recorder.refusal(NAMES[request.scenario], said.status, said.code)
        if words:
            self._recorder.example(outcome, request, done, words)
        if self._tell:
            self._tell(request, (done - intended) * 1000, said.size, words)
        if said.job:
            # Results take room that the next ones need; nobody waits for this.
            self._forget(said.job, request)
        return outcome

    def _perform(self, request: Request, said: Said) -> tuple[Outcome, str]:
        outcome, words = Outcome.RIGHT, ""
        if request.kind == FOREIGN:
            assert self._guests
            with gevent.Timeout(self._timeout_seconds):
                outcome, words, said.status, said.size = self._guests.ask(request.paths[0])
            return outcome, words
        if request.task:
            self._oracle.sent(request.task, request.pictures)
        for path in request.paths:
            body = self._exchange(request.method, path, request.body, request.headers, said)
            outcome, words = self._judge(request, path, said, body)
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

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str], said: Said) -> bytes:
        # Of the whole exchange: an answer that only trickles ends, too.
        with gevent.Timeout(self._timeout_seconds):
            response = self._client.request(method, path, body=body, headers=headers)
            try:
                # Nothing follows a redirect: another host is another target.
                data = bytes(response.read())
            finally:
                response.release()
        said.status, said.timing = response.status_code, response.get("server-timing") or ""
        said.cache, said.size = CACHE.get(response.get("x-cache") or "", 0), said.size + len(data)
        return data

    def _judge(self, request: Request, path: str, said: Said, body: bytes) -> tuple[Outcome, str]:
        if said.status in (429, 503):
            said.code = problem_code(body)
            return Outcome.REFUSED, ""
        if request.kind == "job" and said.status == 202:
            return self._follow(request, said, body)
        if said.status != 200:
            said.code = problem_code(body)
            return Outcome.FAILED, f"status {said.status}: {body[:160].decode(errors='replace')}"
        if request.task:
            return self._oracle.judge(request.task, request.pictures, request.request_id, body, request.kind)
        # The page itself may hold what differs each time; what it is made of may not.
        if path != "/" and zlib.crc32(body) != self._assets[path]:
            return Outcome.WRONG, f"{path} is not what it was at rest"
        return Outcome.RIGHT, ""

    def _follow(self, request: Request, said: Said, body: bytes) -> tuple[Outcome, str]:
        """Ask for a job until it is done, then judge its results."""
        until = self._clock() + self._timeout_seconds
        try:
            said.job = job_path(body)
            while self._clock() < until:
                body = self._exchange("GET", said.job, b"", follow_headers(request), said)
                if said.status != 200:
                    said.code = problem_code(body)
                    return Outcome.FAILED, f"status {said.status} of the job: {body[:160].decode(errors='replace')}"
                state = json.loads(body)["state"]
                if state not in OPEN_STATES:
                    if state != "succeeded":
                        return Outcome.FAILED, f"the job is {state}: {body[:160].decode(errors='replace')}"
                    job_id = said.job.rpartition("/")[2]
                    return self._oracle.judge(request.task, request.pictures, job_id, body, request.kind)
                gevent.sleep(POLL_SECONDS)
        except (ValueError, KeyError, TypeError):
            return Outcome.FAILED, f"no job of ours: {body[:80].decode(errors='replace')}"
        return Outcome.TIMED_OUT, f"the job is still {state} after {self._timeout_seconds:g} s"

    def _forget(self, path: str, request: Request) -> None:
        with contextlib.suppress(OSError, HTTPParseError, HTTPConnectionClosed, gevent.Timeout):
            self._exchange("DELETE", path, b"", follow_headers(request), Said())


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


def read_timings(header: str) -> tuple[float, ...]:
    """Milliseconds that the server tells, in the order of TIMINGS; NaN for what it does not (W3C Server Timing)."""
    if not header:
        return UNKNOWN_TIMINGS
    told = dict(TIMING.findall(header))
    return tuple(float(told[name]) if name in told else UNKNOWN_MS for name in TIMINGS)


class GreenletPool:
    """At most ``size`` greenlets, each of which does one piece of work after another.

    A new one is started only where none is idle: each has a stack of its own, for which the kernel is asked, and given
    back at its end.
    """

    def __init__(self, size: int, work: Callable[..., object]) -> None:
        self._pool, self._work = Pool(size), work
        self._idle: list[gevent.Greenlet] = []
        self._hub = gevent.get_hub()
        self._is_dismissed = False

    def begin(self, *arguments: Any) -> bool:
        """Have somebody do it, as soon as the others let go; False when all are busy."""
        if self._idle:
            # The one that was busy last: what it touches is still in the processor's caches.
            self._hub.loop.run_callback(self._idle.pop().switch, arguments)
        elif self._pool.free_count() > 0:
            self._pool.spawn(self._serve, arguments)
        else:
            return False
        return True

    def dismiss(self) -> None:
        """Let everybody end with what is at work."""
        self._is_dismissed = True
        while self._idle:
            self._hub.loop.run_callback(self._idle.pop().switch, None)

    def join(self, seconds: float) -> bool:
        """Wait so long for all to end; whether some have not."""
        self._pool.join(seconds)
        return bool(self._pool)

    def _serve(self, arguments: tuple[Any, ...] | None) -> None:
        while arguments is not None:
            self._work(*arguments)
            if self._is_dismissed:
                return
            self._idle.append(gevent.getcurrent())
            arguments = self._hub.switch()


class Dispatcher:
    """Drives a sender through a schedule, or through callers who wait for their answers."""

    def __init__(
        self,
        sender: Sender,
        caller: Caller | ForeignUsers,
        recorder: Recorder,
        clock: Callable[[], float],
        *,
        stop_when_bad: float,
        seed: int = 0,
    ) -> None:
        self._sender, self._caller, self._recorder, self._clock = sender, caller, recorder, clock
        self._stop_when_bad = stop_when_bad
        self._chance = random.Random(seed)  # noqa: S311 - chance, not a secret
        self.stopped_early = ""

    def open(self, moments: np.ndarray, slots: int) -> None:
        """Start each request at its moment, at most ``slots`` at once; wait for the last answer.

        An arrival without a free slot is recorded as dropped, never delayed.
        """
        crew, flushed, alarm, requests = GreenletPool(slots, self._sender.send), 0.0, Timer(), self._requests()
        for intended in moments.tolist():
            # Made while there is time, so that it costs none when the moment has come.
            request = next(requests)
            while (wait := intended - self._clock()) > 0:
                if wait > FLUSH_SECONDS / 5 and self._clock() - flushed > FLUSH_SECONDS:
                    self._recorder.flush()
                    flushed = self._clock()
                alarm.sleep(min(wait, FLUSH_SECONDS))
            if self._must_stop():
                break
            if not crew.begin(request, intended):
                self._sender.drop(intended)
            if self._clock() - flushed > FLUSH_SECONDS:
                self._recorder.flush()
                flushed = self._clock()
        alarm.close()
        crew.dismiss()
        while crew.join(FLUSH_SECONDS):
            self._recorder.flush()

    def _requests(self) -> Iterator[Request]:
        """One after another, made several at once: then what makes them is in the processor's caches."""
        while True:
            yield from [self._caller.next() for _ in range(AHEAD)]

    def closed(self, callers: int, from_second: float, until_second: float, think_seconds: float) -> None:
        """So many callers that ask, wait, think and ask again, until a moment; a refused one waits a little.

        They think for ``think_seconds`` on average, each time for another span (exponential), as people do.
        """
        pool = Pool(callers)
        for _ in range(callers):
            pool.spawn(self._ask_again_and_again, from_second, until_second, think_seconds)
        while pool:
            pool.join(FLUSH_SECONDS)
            self._recorder.flush()

    def _ask_again_and_again(self, from_second: float, until_second: float, think_seconds: float) -> None:
        gevent.sleep(max(0.0, from_second - self._clock()))
        while (now := self._clock()) < until_second and not self._must_stop():
            outcome = self._sender.send(self._caller.next(), now)
            think = self._chance.expovariate(1 / think_seconds) if think_seconds else 0.0
            gevent.sleep(think if outcome == Outcome.RIGHT else max(think, REFUSED_PAUSE_SECONDS))

    def _must_stop(self) -> bool:
        if not self.stopped_early and self._stop_when_bad < 1 and self._sender.bad_share() > self._stop_when_bad:
            self.stopped_early = (
                f"{self._sender.bad_share():.0%} of the last {WATCH_SECONDS:g} s failed or were dropped"
            )
        return bool(self.stopped_early)


def clock_from(epoch: float) -> Callable[[], float]:
    """Seconds since a moment of the wall clock that all workers agree on; it does not jump when the wall clock does."""
    began = time.perf_counter() - (time.time() - epoch)
    return lambda: time.perf_counter() - began
