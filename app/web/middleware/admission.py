"""Who may come in: a request that would wait too long is refused at once, a crowd before its bodies are read.

Stands before Flask, because under overload most answers are refusals, and each must cost next to nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, current_app, g, has_request_context, request

from app.errors import CaskError, DeadlineExceededError, EngineBusyError
from app.telemetry import metrics
from app.web import policy
from app.web.middleware import accept_language, deadlines, request_ids
from app.web.middleware.admission_controller import AdmissionController, Refusal, Ticket
from app.web.middleware.cached_lengths import Lengths, Outcome
from app.web.middleware.security_headers import HEADERS

log = logging.getLogger("cask.web")

REFUSED_KEY = "cask.refusal"
TICKET_KEY = "cask.ticket"
# Set by Apache, which has seen the whole body: one like it was answered (apache/modules/mod_arrivals.c).
MAY_BE_KEPT_KEY = "CASK_MAY_BE_KEPT"
# With one of these in Cache-Control no kept answer will do (app.web.middleware.request_context reads it in full).
COMPUTED = re.compile(r"no-cache|no-store|max-age=\W?0\b", re.IGNORECASE)
LOG_PERIOD_SECONDS = 5.0


@dataclass
class Work:
    """So many images of one kind, for which the engine will be asked within the block. Used by one thread, once."""

    controller: AdmissionController
    ticket: Ticket
    kind: str
    images: int
    deadline: float
    number: int = 0

    @property
    def images_a_turn(self) -> int:
        """So many may be taken at once."""
        return self.controller.images_a_turn

    def __enter__(self) -> Work:
        """Ask whether there is time for all of them. Raises EngineBusyError."""
        found = self.controller.begin(self.ticket, self.kind, self.images, self.deadline - time.monotonic())
        if isinstance(found, Refusal):
            raise _count(found)
        self.number = found
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.controller.end_work(self.ticket, self.kind, self.images)

    @contextlib.contextmanager
    def turn(self, images: int) -> Iterator[Callable[[float], None]]:
        """Room with the engine for so many of them, waited for when the block is entered, had while it lasts.

        To be called with the seconds that all of these together have kept one worker of the engine. Raises
        DeadlineExceededError.
        """
        controller, ticket, left = self.controller, self.ticket, self.deadline - time.monotonic()
        refused = controller.take_turn(ticket, self.kind, images, self.number, left)
        if refused is not None:
            raise _count(refused)
        self.images -= images
        took: list[float] = []
        try:
            yield took.append
        finally:
            controller.end_turn(ticket, self.kind, images, took[-1] / images if took else None)


@dataclass(frozen=True)
class Admitted:
    """One admitted request, for the code that asks the engine on its behalf, in any thread."""

    controller: AdmissionController
    ticket: Ticket

    def work(self, kind: str, images: int, deadline: float) -> Work:
        """To be entered as a block when the engine is asked; ``deadline``: a moment of ``time.monotonic``."""
        return Work(self.controller, self.ticket, kind, images, deadline)


def current() -> Admitted | None:
    """The current request; None outside of one. A route that predicts and does not say so is admitted here.

    Raises EngineBusyError.
    """
    if not has_request_context():
        return None
    found: Admitted | None = request.environ.get(TICKET_KEY)
    return found or _admit_late(current_app.extensions["admission"])


def _admit_late(controller: AdmissionController) -> Admitted:
    caller, timeout_seconds = request.environ.get("REMOTE_ADDR", ""), _timeout_seconds(request.environ)
    found = controller.arrive(caller, timeout_seconds, is_computed=True)
    if isinstance(found, Refusal):
        raise _count(found)
    g.late_ticket = found
    request.environ[TICKET_KEY] = admitted = Admitted(controller, found)
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
    """WSGI middleware that asks the controller. ``paths``: those that predict; ``pages``: those that answer in HTML."""

    def __init__(
        self,
        application: WSGIApplication,
        controller: AdmissionController,
        paths: Container[str],
        pages: Container[str] = (),
        lengths: Lengths | None = None,
    ) -> None:
        """``lengths``: of bodies whose answers may be kept; None where none are."""
        self._application = application
        self._paths, self._pages = paths, pages
        self.controller = controller
        self._lengths = lengths
        self._logged = -math.inf

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on, or answer 503 with Retry-After without touching its body."""
        route = environ.get("PATH_INFO", "")
        is_page = False
        if environ.get("REQUEST_METHOD") != "POST" or not (route in self._paths or (is_page := route in self._pages)):
            return self._application(environ, start_response)
        caller = environ.get("REMOTE_ADDR", "")
        is_computed, length = _is_computed(environ), _length(environ)
        may_be_kept = (
            self._lengths is not None
            and not is_computed
            and (MAY_BE_KEPT_KEY in environ or self._lengths.may_be_kept(length))
        )
        found = self.controller.arrive(
            caller, _timeout_seconds(environ), is_computed=is_computed, may_be_kept=may_be_kept
        )
        if isinstance(found, Ticket):
            return self._admit(found, length, environ, start_response)
        self._log(found)
        # A page shows its refusals as a page; the way through Flask is dear, but people do not come by the thousand.
        if is_page:
            environ[REFUSED_KEY] = found
            return self._application(environ, start_response)
        return _refuse(environ, start_response, found)

    def _admit(
        self, ticket: Ticket, length: int, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        status = ""

        def note_status(line: str, *rest: Any, **named: Any) -> Any:
            nonlocal status
            status = line
            return start_response(line, *rest, **named)

        environ[TICKET_KEY] = Admitted(self.controller, ticket)
        try:
            return self._application(environ, note_status)
        finally:
            is_answered = status.startswith("200")
            self.controller.leave(ticket, is_answered=is_answered)
            if self._lengths is not None and (is_answered or ticket.is_refused):
                self._lengths.note(length, _outcome(ticket))

    def _log(self, refused: Refusal) -> None:
        """One line for many refusals: under overload a line each would be a second flood."""
        now = time.monotonic()
        if now - self._logged > LOG_PERIOD_SECONDS:
            self._logged = now
            log.warning(
                "%s (%s): more requests than can be answered in time; %d refused since the start",
                EngineBusyError.code,
                refused.reason,
                self.controller.refused_total,
            )


def init_app(app: Flask, controller: AdmissionController, lengths: Lengths | None = None) -> None:
    """Put the controller before the app; ``lengths`` as in ``Admission``."""
    paths, pages = (policy.Paths(app, each) for each in (policy.predicting, policy.predicting_pages))
    middleware = Admission(app.wsgi_app, controller, paths, pages, lengths)
    app.wsgi_app = middleware  # type: ignore[method-assign]
    app.extensions["admission"] = controller

    @app.before_request
    def refuse_page() -> None:
        refused = request.environ.get(REFUSED_KEY)
        if refused is not None:
            raise _count(refused)

    @app.teardown_request
    def leave_late(error: BaseException | None) -> None:
        ticket = g.pop("late_ticket", None)
        if ticket is not None:
            controller.leave(ticket, is_answered=error is None)


def _is_computed(environ: WSGIEnvironment) -> bool:
    said: str = environ.get("HTTP_CACHE_CONTROL") or environ.get("HTTP_PRAGMA") or ""
    return bool(said) and COMPUTED.search(said) is not None


def _length(environ: WSGIEnvironment) -> int:
    """Of the body in bytes; 0 where it is not said."""
    said: str = environ.get("CONTENT_LENGTH") or "0"
    return int(said) if said.isdecimal() else 0


def _outcome(ticket: Ticket) -> Outcome:
    if ticket.is_refused:
        return Outcome.IN_VAIN
    return Outcome.COMPUTED if ticket.has_asked else Outcome.KEPT


def _timeout_seconds(environ: WSGIEnvironment) -> float:
    try:
        return float(environ.get(deadlines.TIMEOUT_KEY, math.inf))
    except ValueError:
        # The guard for deadlines says what is wrong with it.
        return math.inf


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, refused: Refusal) -> list[bytes]:
    error = _count(refused)
    metrics.REFUSED.add(code=error.code, by="app")
    request_id = request_ids.choose(environ.get(REQUEST_ID_KEY, ""))
    language = accept_language.accepted(environ.get("HTTP_ACCEPT_LANGUAGE", ""))
    body = json.dumps(error.to_problem(request_id, accept_language.speaker(language))).encode()
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Retry-After", str(math.ceil(refused.retry_after_seconds))),
        ("Cache-Control", "no-store"),
        (request_ids.HEADER, request_id),
        *accept_language.headers(language).items(),
        *HEADERS.items(),
    ]
    start_response("503 Service Unavailable", headers)
    return [body]


def _environ_key(header: str) -> str:
    """The name under which WSGI hands a header over (PEP 3333)."""
    return "HTTP_" + header.upper().replace("-", "_")


REQUEST_ID_KEY = _environ_key(request_ids.HEADER)
