"""Counts every request and its time: outermost, so that answers given before Flask count too."""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, RequestRedirect

from app.supervision import probe, pulse
from app.telemetry import logs, metrics, traces
from app.web import policy
from app.web.middleware import deadlines, request_ids

log = logging.getLogger("cask.web")

NO_ROUTE = "(none)"
# Of an address as a label, see ``metrics.ROUTE``.
LONGEST_CHARACTERS = 120
# Addresses with a part of their own, such as a job's, are looked up anew when so many others came between.
REMEMBERED_PATHS = 1024
# Set where the caller went away in the middle: whatever we then say, it counts as 499.
GONE_KEY = "cask.caller_gone"


class Routes:
    """Which address of the app a path belongs to, as OpenAPI writes it: ``/v1/models/{name}``. Thread-safe."""

    def __init__(self, url_map: Map) -> None:
        self._adapter = url_map.bind("")
        self.of = functools.lru_cache(REMEMBERED_PATHS)(self._of)

    def _of(self, path: str, method: str) -> str:
        """The template, or ``(none)``. ``path``: as WSGI has it, a character for each byte."""
        try:
            text = path.encode("latin-1", "replace").decode("utf-8", "replace")
            rule, _ = self._adapter.match(text or "/", method, return_rule=True)
        except MethodNotAllowed as error:
            allowed = next(iter(error.valid_methods or ()), None)
            return self._of(path, allowed) if allowed and allowed != method else NO_ROUTE
        except (RequestRedirect, HTTPException):
            return NO_ROUTE
        return policy.template(rule.rule)[:LONGEST_CHARACTERS]


class Measures:
    """WSGI middleware that counts."""

    def __init__(
        self, application: WSGIApplication, routes: Routes, begin: Callable[[], None], silence_seconds: float = math.inf
    ) -> None:
        """``begin`` is called once, at the latest with the first request. ``silence_seconds``: see Settings."""
        self._application = application
        self._silence_seconds = silence_seconds
        self._routes = routes
        self._begin = begin
        self._is_begun = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """From here on this process serves, and is not only looked at."""
        with self._lock:
            if not self._is_begun:
                self._begin()
                self._is_begun = True

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on; its answer is counted before the caller sees any of it."""
        if not self._is_begun:
            self.begin()
        if environ.get("PATH_INFO") == probe.PATH:
            return _alive(start_response)
        pulse.begin()
        began = time.perf_counter()
        if (waited := deadlines.waited_seconds(environ)) is not None:
            metrics.WEB_QUEUE_SECONDS.observe(waited)
        status = "500"

        def note_status(line: str, *rest: Any, **named: Any) -> Any:
            nonlocal status
            status = line[:3]
            return start_response(line, *rest, **named)

        metrics.IN_FLIGHT.add(1)
        trace = traces.begin(environ)
        try:
            return self._application(environ, note_status)
        finally:
            pulse.answered()
            metrics.IN_FLIGHT.add(-1)
            method = environ.get("REQUEST_METHOD", "")
            status = metrics.GONE if GONE_KEY in environ else status
            route = self._routes.of(environ.get("PATH_INFO", ""), method)
            count(route, method, status, "app")
            seconds = time.perf_counter() - began
            metrics.REQUEST_SECONDS.observe(seconds, route=route)
            if seconds > self._silence_seconds:
                self._tell_late(environ, method, route, seconds)
            if trace is not None:
                trace.end(method, route, status)

    def _tell_late(self, environ: WSGIEnvironment, method: str, route: str, seconds: float) -> None:
        token = logs.request_id.set(environ.get("HTTP_X_REQUEST_ID", ""))
        log.warning(
            "%s %s answered after %.0f s; its caller got 504 after %.0f s"
            " (REQUEST_MAX_TIMEOUT_SECONDS + SERVER_BODY_TIMEOUT_SECONDS)",
            *(method, route, seconds, self._silence_seconds),
        )
        logs.request_id.reset(token)


def count(route: str, method: str, status: str, by: str) -> None:
    """Count one answer. What the declaration does not know counts as other."""
    method = method if method in metrics.METHODS else metrics.OTHER
    metrics.REQUESTS.add(route=route, method=method, status=known(status), by=by)


def known(status: str) -> str:
    """The status, or other where none is declared."""
    return status if status in metrics.STATUSES else metrics.OTHER


def init_app(app: Flask, begin: Callable[[], None], silence_seconds: float = math.inf) -> None:
    """Stand before everything that was put before the app until now; the rest as for ``Measures``."""
    app.extensions["routes"] = Routes(app.url_map)
    measures = Measures(app.wsgi_app, app.extensions["routes"], begin, silence_seconds)
    app.wsgi_app = measures  # type: ignore[method-assign]
    if app.extensions["is_under_apache"]:
        # Elsewhere an app may be made for a look at it; here it will serve.
        measures.begin()


def _alive(start_response: StartResponse) -> list[bytes]:
    """For the probe: an answer of the app, which Apache need not count, and nothing besides."""
    start_response("204 No Content", [(request_ids.HEADER, request_ids.choose(""))])
    return []
