"""Who may come in: a request that would wait too long is refused at once, before its body is read.

Stands before Flask, because under overload most answers are refusals, and each must cost next to nothing.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, request

from app.errors import EngineBusyError
from app.guards import deadlines, request_ids
from app.guards.headers import HEADERS
from app.guards.notices import Notices
from app.telemetry import metrics

log = logging.getLogger("cask.web")

# Requests that ask for a prediction; everything else is quick and always let in.
PREDICTING = re.compile(r"/v1/(classify|detect|ensemble)|/upload|/(predict|api)?|/v2/models/.+/infer")
# The page shows its refusals as a page; the way through Flask is dear, but people do not come by the thousand.
PAGE = "/upload"
REFUSED_KEY = "cask.retry_after_seconds"
VISIT_KEY = "cask.visit"
# Weight of the newest request in the running mean of what a request costs, once there were as many as it stands for:
# before, all weigh the same, lest the first of a cold server pass for what the others cost.
NEWEST_WEIGHT = 0.1
# Who arrived so recently is taken for one whose body follows at once, as nearly all do: it will be in work in a moment.
FRESH_SECONDS = 0.2
# The last places are for callers that hold less than their share, so that one address cannot take them all.
RESERVED_SHARE = 0.25
# A caller's notice is taken down when this share of what was too much is gone, not with each request that ends.
REOPENING_SHARE = 0.5
LEAST_RETRY_AFTER_SECONDS = 1
LOG_PERIOD_SECONDS = 5.0

StartResponse = Callable[..., Any]
Environ = dict[str, Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]


@dataclass
class Gate:
    """Counts requests, learns what they cost, and says who may join them. Thread-safe.

    A request first *arrives* (its body is still on the way, perhaps for long), then is *in work*. Only what is in work
    keeps others waiting, or what has only just arrived: of many that come at once, the last would else be let in before
    the first is in work, and be refused after its body was read. Its cost is the time for which it keeps the engine
    from others, in seconds: its time in work divided by the number of requests that shared that time (Little's law:
    number in work = rate × time in work).
    """

    places: int
    max_wait_seconds: float
    # So many are let in however slow the model is: they keep the engine busy.
    least_places: int = 2
    arriving: int = 0
    in_work: int = 0
    refused_total: int = 0
    cost_seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _learned: Counter[str] = field(default_factory=Counter)
    # When and for what the last ones arrived, the oldest first.
    _fresh: deque[tuple[float, str]] = field(default_factory=deque)
    _by_route: Counter[str] = field(default_factory=Counter)
    _by_caller: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, route: str, caller: str, timeout_seconds: float = math.inf) -> float | None:
        """Take a place. Returns None when admitted, else the seconds after which to try again."""
        with self._lock:
            share = self._share(caller)
            self._forget_late()
            is_full = self.arriving + self.in_work >= self.places * share
            is_busy = self.in_work + len(self._fresh) >= self.least_places
            wait = self._ahead() + self._arrived() + self.cost_seconds.get(route, 0.0)
            is_slow = is_busy and wait > min(self._longest(share), timeout_seconds)
            if is_full or is_slow:
                return self._refuse(wait)
            self.arriving += 1
            self._fresh.append((self.clock(), route))
            self._by_caller[caller] += 1
            return None

    def begin(self, route: str, caller: str) -> float | None:
        """The body is there: from arriving to in work. Returns None, or as ``arrive`` when others were faster."""
        with self._lock:
            wait = self._ahead() + self.cost_seconds.get(route, 0.0)
            if wait > self._longest(self._share(caller)) and self.in_work >= self.least_places:
                return self._refuse(wait)
            self._has_come(route)
            self.in_work += 1
            self._by_route[route] += 1
            return None

    def is_refused(self, caller: str, has_notice: bool, coming: float = 0.0) -> bool:
        """Whether a request of this caller would be refused now; with a notice, until there is some room again.

        ``coming``: so many more are on their way, as far as is known, and are to find a place yet.
        """
        with self._lock:
            level = 1 - REOPENING_SHARE if has_notice else 1
            share = self._share(caller)
            self._forget_late()
            cost_seconds = min(self.cost_seconds.values(), default=0.0)
            wait = self._ahead() + self._arrived() + (1 + coming) * cost_seconds
            is_full = self.arriving + self.in_work + coming >= self.places * share * level
            is_busy = self.in_work + len(self._fresh) >= self.least_places
            return is_full or (is_busy and wait > self._longest(share) * level)

    def leave(self, route: str, caller: str) -> None:
        """Give the place back without having begun."""
        with self._lock:
            self._has_come(route)
            self._forget(caller)

    def end(self, route: str, caller: str, seconds: float, shared_with: float, *, is_answered: bool) -> None:
        """Give the place back after work. ``shared_with``: how many were in work meanwhile, this one included."""
        with self._lock:
            self.in_work -= 1
            self._by_route[route] -= 1
            self._forget(caller)
            if is_answered:
                self._learn(route, seconds / max(1.0, shared_with))

    def _refuse(self, wait: float) -> float:
        """Count a refusal; the seconds after which to try again."""
        self.refused_total += 1
        return max(LEAST_RETRY_AFTER_SECONDS, wait)

    def _has_come(self, route: str) -> None:
        """One of those that were arriving is here, or has gone."""
        self.arriving -= 1
        # Those of one route are alike: it is no matter which of them is struck out.
        entry = next((each for each in self._fresh if each[1] == route), None)
        if entry is not None:
            self._fresh.remove(entry)

    def _forget_late(self) -> None:
        """Whose body has not come by now may let us wait for long: it keeps nobody waiting any more."""
        end = self.clock() - FRESH_SECONDS
        while self._fresh and self._fresh[0][0] < end:
            self._fresh.popleft()

    def _arrived(self) -> float:
        """Seconds of work that will come before in a moment."""
        return sum(self.cost_seconds.get(route, 0.0) for _, route in self._fresh)

    def _ahead(self) -> float:
        """Seconds of work that came before."""
        return sum(count * self.cost_seconds.get(name, 0.0) for name, count in self._by_route.items())

    def _longest(self, share: float) -> float:
        """The longest wait for a caller with this share, in seconds."""
        return self.max_wait_seconds * (1 + RESERVED_SHARE if share == 1 else 1)

    def _share(self, caller: str) -> float:
        """How much of everything this caller may help to fill: the last part is for those who hold little."""
        callers = len(self._by_caller) + (caller not in self._by_caller)
        holds_little = callers > 1 and self._by_caller[caller] < self.places / callers
        return 1.0 if holds_little else 1 - RESERVED_SHARE

    def _forget(self, caller: str) -> None:
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]

    def _learn(self, route: str, seconds: float) -> None:
        self._learned[route] += 1
        known = self.cost_seconds.get(route, 0.0)
        self.cost_seconds[route] = known + max(NEWEST_WEIGHT, 1 / self._learned[route]) * (seconds - known)


@dataclass
class Visit:
    """One admitted request, from its arrival to its end. Used by one thread."""

    gate: Gate
    route: str
    caller: str
    began: float | None = None
    before: int = 0

    def begin(self) -> None:
        """Its images are there, the engine comes next. Raises EngineBusyError when others were faster."""
        if self.began is not None:
            return
        retry_after_seconds = self.gate.begin(self.route, self.caller)
        if retry_after_seconds is not None:
            raise refusal(retry_after_seconds)
        self.began, self.before = time.monotonic(), self.gate.in_work

    def end(self, *, is_answered: bool) -> None:
        """Give the place back."""
        if self.began is None:
            self.gate.leave(self.route, self.caller)
            return
        seconds, shared = time.monotonic() - self.began, (self.before + self.gate.in_work) / 2
        self.gate.end(self.route, self.caller, seconds, shared, is_answered=is_answered)


def begin() -> None:
    """Called by views when they have read the images: from here on the request keeps others waiting.

    Raises EngineBusyError when it would wait too long by now.
    """
    visit = request.environ.get(VISIT_KEY)
    if visit is not None:
        visit.begin()


def refusal(retry_after_seconds: float) -> EngineBusyError:
    """What a refused caller is told."""
    return EngineBusyError(
        "More requests are in work than can be answered in time.",
        hint="Send it again after the time in Retry-After.",
        retry_after_seconds=retry_after_seconds,
    )


class Admission:
    """WSGI middleware that asks the gate."""

    def __init__(self, application: Wsgi, gate: Gate, notices: Notices | None = None) -> None:
        self._application = application
        self.gate = gate
        self._notices = notices
        self._logged = -math.inf

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on, or answer 503 with Retry-After without touching its body."""
        route = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") != "POST" or not PREDICTING.fullmatch(route):
            return self._application(environ, start_response)
        caller = environ.get("REMOTE_ADDR", "")
        retry_after_seconds = self.gate.arrive(route, caller, _timeout_seconds(environ))
        if retry_after_seconds is None:
            return self._admit(Visit(self.gate, route, caller), environ, start_response)
        self._log()
        if self._notices is not None:
            self._notices.update(caller)
        if route == PAGE:
            environ[REFUSED_KEY] = retry_after_seconds
            return self._application(environ, start_response)
        return _refuse(environ, start_response, retry_after_seconds)

    def _admit(self, visit: Visit, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        status = ""

        def note_status(line: str, *rest: Any, **named: Any) -> Any:
            nonlocal status
            status = line
            return start_response(line, *rest, **named)

        environ[VISIT_KEY] = visit
        if self._notices is not None:
            # Whoever comes next would be too many: better to say so before it comes than after.
            self._notices.update(visit.caller)
        try:
            return self._application(environ, note_status)
        finally:
            visit.end(is_answered=status.startswith("200"))
            if self._notices is not None:
                self._notices.ended()

    def _log(self) -> None:
        """One line for many refusals: under overload a line each would be a second flood."""
        now = time.monotonic()
        if now - self._logged > LOG_PERIOD_SECONDS:
            self._logged = now
            log.warning(
                "%s: more requests than the engine can answer in time; %d refused since the start",
                EngineBusyError.code,
                self.gate.refused_total,
            )


def init_app(app: Flask, gate: Gate, notices: Notices | None = None) -> None:
    """Put the gate before the app; with ``notices`` it tells Apache whom to refuse."""
    middleware = Admission(app.wsgi_app, gate, notices)
    app.wsgi_app = middleware  # type: ignore[method-assign]
    app.extensions["gate"] = gate

    @app.before_request
    def refuse_page() -> None:
        retry_after_seconds = request.environ.get(REFUSED_KEY)
        if retry_after_seconds is not None:
            raise refusal(retry_after_seconds)


def _timeout_seconds(environ: Environ) -> float:
    try:
        return float(environ.get(TIMEOUT_KEY, math.inf))
    except ValueError:
        # The guard for deadlines says what is wrong with it.
        return math.inf


def _refuse(environ: Environ, start_response: StartResponse, retry_after_seconds: float) -> list[bytes]:
    error = refusal(retry_after_seconds)
    metrics.REFUSED.add(code=error.code, by="app")
    request_id = request_ids.choose(environ.get(REQUEST_ID_KEY, ""))
    body = json.dumps(error.to_problem(request_id)).encode()
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Retry-After", str(math.ceil(retry_after_seconds))),
        ("Cache-Control", "no-store"),
        (request_ids.HEADER, request_id),
        *HEADERS.items(),
    ]
    start_response("503 Service Unavailable", headers)
    return [body]


def _environ_key(header: str) -> str:
    """The name under which WSGI hands a header over (PEP 3333)."""
    return "HTTP_" + header.upper().replace("-", "_")


TIMEOUT_KEY = _environ_key(deadlines.HEADER)
REQUEST_ID_KEY = _environ_key(request_ids.HEADER)
