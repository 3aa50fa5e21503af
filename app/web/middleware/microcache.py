"""Answers of cheap routes, kept for a moment: hundreds of health checks a second cost next to nothing.

Stands before Flask, whose way through all guards costs many times what such an answer does. Only what is the same for
every caller is kept: a plain GET without query, cookie or credentials that was answered with 200, and not with headers
that are meant for one caller, such as what is left of its limit of requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask

from app.web import policy
from app.web.middleware import request_ids

Headers = list[tuple[str, str]]

# With one of these a request is not like any other; Flask answers it.
PERSONAL = frozenset(
    {
        *("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_X_API_TOKEN", "HTTP_X_REQUEST_TIMEOUT"),
        *("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_ORIGIN", "HTTP_RANGE"),
    }
)
# Beginnings of the names of headers that are one caller's own: an answer with one of them is kept for nobody.
OWN = ("set-cookie", "ratelimit", "retry-after", "www-authenticate", "vary")
REQUEST_ID_KEY = "HTTP_X_REQUEST_ID"
# Health answers to any host name, so that their number has no other bound.
MAX_KEPT = 64
# While one request fetches anew, the others get the old answer for at most so long.
FETCH_SECONDS = 1.0


@dataclass
class Kept:
    """One answer and the moment until which it holds. The request id is not part of it."""

    status: str
    headers: Headers
    body: bytes
    until: float


class Microcache:
    """WSGI middleware that keeps the answers of some paths. Thread-safe: each step on its table is one step."""

    def __init__(
        self,
        application: WSGIApplication,
        paths: Container[str],
        keep_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._application = application
        self._paths = paths
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._kept: dict[tuple[str, ...], Kept] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer from memory, or pass the request on and remember."""
        path = environ.get("PATH_INFO", "")
        if not _is_plain(environ) or path not in self._paths:
            return self._application(environ, start_response)
        # Where we are asked stands in addresses that an answer names.
        key = (path, *(environ.get(name, "") for name in ("HTTP_HOST", "SCRIPT_NAME", "wsgi.url_scheme")))
        kept, now = self._kept.get(key), self._clock()
        if kept is None or now >= kept.until:
            if kept is not None:
                kept.until = now + FETCH_SECONDS
            return self._fetch(key, environ, start_response)
        request_id = request_ids.choose(environ.get(REQUEST_ID_KEY, ""))
        start_response(kept.status, [*kept.headers, (request_ids.HEADER, request_id)])
        return [kept.body]

    def _fetch(self, key: tuple[str, ...], environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        noted: list[tuple[str, Headers]] = []

        def note(status: str, headers: Headers, *rest: Any) -> Any:
            noted.append((status, headers))
            return start_response(status, headers, *rest)

        chunks = self._application(environ, note)
        try:
            body = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        self._keep(key, *noted[-1], body)
        return [body]

    def _keep(self, key: tuple[str, ...], status: str, headers: Headers, body: bytes) -> None:
        is_own = any(name.lower().startswith(OWN) for name, _ in headers)
        if is_own or not status.startswith("200"):
            self._kept.pop(key, None)
            return
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        common = [(name, value) for name, value in headers if name.lower() != request_ids.HEADER.lower()]
        self._kept[key] = Kept(status, common, body, self._clock() + self._keep_seconds)


def init_app(app: Flask, keep_ms: int) -> None:
    """Keep the answers of routes that say so for ``keep_ms`` milliseconds; 0 keeps nothing."""
    if keep_ms:
        paths = policy.Paths(app, policy.microcached)
        app.wsgi_app = Microcache(app.wsgi_app, paths, keep_ms / 1000)  # type: ignore[method-assign]


def _is_plain(environ: WSGIEnvironment) -> bool:
    return environ["REQUEST_METHOD"] == "GET" and not environ.get("QUERY_STRING") and PERSONAL.isdisjoint(environ)
