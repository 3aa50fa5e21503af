"""Who may come in: a request that would wait too long is refused at once, a crowd before its bodies are read.

Stands before Flask, because under overload most answers are refusals, and each must cost next to nothing.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from flask import Flask, current_app, g, has_request_context, request

from app import policy
from app.errors import CaskError, DeadlineExceededError, EngineBusyError
from app.guards import deadlines, languages, request_ids
from app.guards.gate import Gate, Refusal, Visit
from app.guards.headers import HEADERS
from app.guards.lengths import Lengths, Outcome
from app.guards.notices import Notices
from app.telemetry import metrics

log = logging.getLogger("cask.web")

REFUSED_KEY = "cask.refusal"
VISIT_KEY = "cask.visit"
# With one of these in Cache-Control no kept answer will do (app.guards.asking reads it in full).
COMPUTED = re.compile(r"no-cache|no-store|max-age=\W?0\b", re.IGNORECASE)
LOG_PERIOD_SECONDS = 5.0

StartResponse = Callable[..., Any]
Environ = dict[str, Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]


@dataclass
class Work:
    """So many images of one kind, for which the engine will be asked within the block. Used by one thread, once."""

    gate: Gate
    visit: Visit
    kind: str
    images: int
    deadline: float
    number: int = 0

    @property
    def images_a_turn(self) -> int:
        """So many may be taken at once."""
        return self.gate.images_a_turn

    def __enter__(self) -> Work:
        """Ask whether there is time for all of them. Raises EngineBusyError."""
        found = self.gate.begin(self.visit, self.kind, self.images, self.deadline - time.monotonic())
        if isinstance(found, Refusal):
            raise _count(found)
        self.number = found
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.gate.end_work(self.visit, self.kind, self.images)

    @contextmanager
    def turn(self, images: int) -> Iterator[Callable[[float], None]]:
        """Wait for room with the engine for so many of them, and have it while the block lasts. To be called with the
        seconds that all of these together have kept one worker of the engine. Raises DeadlineExceededError.
        """
        left = self.deadline - time.monotonic()
        refused = self.gate.take_turn(self.visit, self.kind, images, self.number, left)
        if refused is not None:
            raise _count(refused)
        self.images -= images
        seconds: list[float] = []
        try:
            yield seconds.append
        finally:
            self.gate.end_turn(self.visit, self.kind, images, seconds[-1] / images if seconds else None)


@dataclass(frozen=True)
class Admitted:
    """One admitted request, for whoever asks the engine on its behalf, in any thread."""

    gate: Gate
    visit: Visit

    def work(self, kind: str, images: int, deadline: float) -> Work:
        """To be entered as a block when the engine is asked; ``deadline``: a moment of ``time.monotonic``."""
        return Work(self.gate, self.visit, kind, images, deadline)


def current() -> Admitted | None:
    """The current request; None outside of one. A route that predicts and does not say so is admitted here.

    Raises EngineBusyError.
    """
    if not has_request_context():
        return None
    found: Admitted | None = request.environ.get(VISIT_KEY)
    return found or _admit_late(current_app.extensions["gate"])


def _admit_late(gate: Gate) -> Admitted:
    caller, timeout_seconds = request.environ.get("REMOTE_ADDR", ""), _timeout_seconds(request.environ)
    found = gate.arrive(caller, timeout_seconds, is_computed=True)
    if isinstance(found, Refusal):
        raise _count(found)
    g.late_visit = found
    request.environ[VISIT_KEY] = admitted = Admitted(gate, found)
    return admitted


def refusal(refused: Refusal) -> CaskError:
    """What a refused caller is told."""
    if refused.reason == "late":
        return DeadlineExceededError(
            "The deadline passed while the request waited for the engine.",
            hint="Allow more time with X-Request-Timeout, or send less at once.",
        )
    if refused.reason == "slots":
        return EngineBusyError(
            "All places for requests are taken, or all that one address may have while others ask too.",
            hint="Open fewer connections at once; send it again after the time in Retry-After.",
            retry_after_seconds=refused.retry_after_seconds,
            reason="slots",
        )
    return EngineBusyError(
        "More requests are in work than can be answered in time.",
        hint="Send it again after the time in Retry-After.",
        retry_after_seconds=refused.retry_after_seconds,
    )


def _count(refused: Refusal) -> CaskError:
    metrics.NOT_ADMITTED.add(reason=refused.reason)
    return refusal(refused)


class Admission:
    """WSGI middleware that asks the gate. ``paths``: those that predict; ``pages``: those that answer with a page."""

    def __init__(
        self,
        application: Wsgi,
        gate: Gate,
        paths: Container[str],
        pages: Container[str] = (),
        notices: Notices | None = None,
        lengths: Lengths | None = None,
    ) -> None:
        """``lengths``: of bodies whose answers may be kept; None where none are."""
        self._application = application
        self._paths, self._pages = paths, pages
        self.gate = gate
        self._notices = notices
        self._lengths = lengths
        self._logged = -math.inf

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on, or answer 503 with Retry-After without touching its body."""
        route = environ.get("PATH_INFO", "")
        is_page = False
        if environ.get("REQUEST_METHOD") != "POST" or not (route in self._paths or (is_page := route in self._pages)):
            return self._application(environ, start_response)
        caller = environ.get("REMOTE_ADDR", "")
        is_computed, length = _is_computed(environ), _length(environ)
        may_be_kept = self._lengths is not None and not is_computed and self._lengths.may_be_kept(length)
        found = self.gate.arrive(caller, _timeout_seconds(environ), is_computed=is_computed, may_be_kept=may_be_kept)
        if isinstance(found, Visit):
            return self._admit(found, length, environ, start_response)
        self._log(found)
        if self._notices is not None:
            self._notices.update(caller)
        # A page shows its refusals as a page; the way through Flask is dear, but people do not come by the thousand.
        if is_page:
            environ[REFUSED_KEY] = found
            return self._application(environ, start_response)
        return _refuse(environ, start_response, found)

    def _admit(self, visit: Visit, length: int, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        status = ""

        def note_status(line: str, *rest: Any, **named: Any) -> Any:
            nonlocal status
            status = line
            return start_response(line, *rest, **named)

        environ[VISIT_KEY] = Admitted(self.gate, visit)
        if self._notices is not None:
            # Whoever comes next would be too many: better to say so before it comes than after.
            self._notices.update(visit.caller)
        try:
            return self._application(environ, note_status)
        finally:
            is_answered = status.startswith("200")
            self.gate.leave(visit, is_answered=is_answered)
            if self._lengths is not None and (is_answered or visit.is_refused):
                self._lengths.note(length, _outcome(visit))
            if self._notices is not None:
                self._notices.ended()

    def _log(self, refused: Refusal) -> None:
        """One line for many refusals: under overload a line each would be a second flood."""
        now = time.monotonic()
        if now - self._logged > LOG_PERIOD_SECONDS:
            self._logged = now
            log.warning(
                "%s (%s): more requests than can be answered in time; %d refused since the start",
                EngineBusyError.code,
                refused.reason,
                self.gate.refused_total,
            )


def init_app(app: Flask, gate: Gate, notices: Notices | None = None, lengths: Lengths | None = None) -> None:
    """Put the gate before the app; with ``notices`` it tells Apache whom to refuse. ``lengths``: as ``Admission``."""
    paths, pages = (policy.Paths(app, each) for each in (policy.predicting, policy.predicting_pages))
    middleware = Admission(app.wsgi_app, gate, paths, pages, notices, lengths)
    app.wsgi_app = middleware  # type: ignore[method-assign]
    app.extensions["gate"] = gate

    @app.before_request
    def refuse_page() -> None:
        refused = request.environ.get(REFUSED_KEY)
        if refused is not None:
            raise _count(refused)

    @app.teardown_request
    def leave_late(error: BaseException | None) -> None:
        visit = g.pop("late_visit", None)
        if visit is not None:
            gate.leave(visit, is_answered=error is None)


def _is_computed(environ: Environ) -> bool:
    said: str = environ.get("HTTP_CACHE_CONTROL") or environ.get("HTTP_PRAGMA") or ""
    return bool(said) and COMPUTED.search(said) is not None


def _length(environ: Environ) -> int:
    """Of the body in bytes; 0 where it is not said."""
    said: str = environ.get("CONTENT_LENGTH") or "0"
    return int(said) if said.isdecimal() else 0


def _outcome(visit: Visit) -> Outcome:
    if visit.is_refused:
        return Outcome.IN_VAIN
    return Outcome.COMPUTED if visit.has_asked else Outcome.KEPT


def _timeout_seconds(environ: Environ) -> float:
    try:
        return float(environ.get(TIMEOUT_KEY, math.inf))
    except ValueError:
        # The guard for deadlines says what is wrong with it.
        return math.inf


def _refuse(environ: Environ, start_response: StartResponse, refused: Refusal) -> list[bytes]:
    error = _count(refused)
    metrics.REFUSED.add(code=error.code, by="app")
    request_id = request_ids.choose(environ.get(REQUEST_ID_KEY, ""))
    language = languages.accepted(environ.get("HTTP_ACCEPT_LANGUAGE", ""))
    body = json.dumps(error.to_problem(request_id, languages.speaker(language))).encode()
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Retry-After", str(math.ceil(refused.retry_after_seconds))),
        ("Cache-Control", "no-store"),
        (request_ids.HEADER, request_id),
        *languages.headers(language).items(),
        *HEADERS.items(),
    ]
    start_response("503 Service Unavailable", headers)
    return [body]


def _environ_key(header: str) -> str:
    """The name under which WSGI hands a header over (PEP 3333)."""
    return "HTTP_" + header.upper().replace("-", "_")


TIMEOUT_KEY = _environ_key(deadlines.HEADER)
REQUEST_ID_KEY = _environ_key(request_ids.HEADER)
