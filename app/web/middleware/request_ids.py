"""One id for each request, from Apache's access log to the engine's answer."""

from __future__ import annotations

import re
import uuid

from flask import Flask, Response, g, request

from app.telemetry import logs

HEADER = "X-Request-Id"
# Callers may bring their own; what they send ends in logs, so only harmless characters are taken.
PATTERN = re.compile(r"[A-Za-z0-9@._-]{8,64}")


def init_app(app: Flask) -> None:
    """Choose the id first of all, and give it back with every answer."""
    app.before_request(begin)
    app.after_request(end)


def current() -> str:
    """The id of the current request; empty outside of one."""
    return str(g.get("request_id", "")) if g else ""


def choose(given: str) -> str:
    """The id that the caller gave when it is harmless, else a new one."""
    return given if PATTERN.fullmatch(given) else uuid.uuid4().hex


def begin() -> None:
    """Choose the id of the current request."""
    g.request_id = choose(request.headers.get(HEADER, ""))
    logs.request_id.set(g.request_id)


def end(response: Response) -> Response:
    """Give the id back with the answer."""
    response.headers[HEADER] = current()
    logs.request_id.set("")
    return response
