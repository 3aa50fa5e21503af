"""The moment by which the caller wants an answer: X-Request-Timeout in seconds, else the default.

They count from when Apache handed the request on, so that work which waited longer for a thread is not begun.
"""

from __future__ import annotations

import math
import time
from wsgiref.types import WSGIEnvironment

from flask import Flask, g, request

from app.config import Settings
from app.errors import DeadlineExceededError, OptionError

HEADER = "X-Request-Timeout"
# The name under which WSGI hands it over (PEP 3333).
TIMEOUT_KEY = "HTTP_X_REQUEST_TIMEOUT"
# When Apache handed the request on, in seconds since 1970 (mod_wsgi).
QUEUE_START_KEY = "mod_wsgi.queue_start"


def init_app(app: Flask, settings: Settings) -> None:
    """Note the deadline of each request when it arrives."""

    @app.before_request
    def note_deadline() -> None:
        g.deadline = moment(request.environ, settings)


def current() -> float:
    """The deadline of the current request, a moment of ``time.monotonic``."""
    return float(g.deadline)


def moment(environ: WSGIEnvironment, settings: Settings) -> float:
    """The deadline of a request that has just come: a moment of ``time.monotonic``.

    Raises OptionError for the header, and DeadlineExceededError where it passed while the request waited for a thread.
    """
    text = environ.get(TIMEOUT_KEY)
    seconds = settings.request_timeout_seconds if text is None else _seconds(text, settings.request_max_timeout_seconds)
    seconds -= waited_seconds(environ) or 0.0
    if seconds <= 0:
        raise DeadlineExceededError("The deadline passed while the request waited for a thread of the app.")
    return time.monotonic() + seconds


def waited_seconds(environ: WSGIEnvironment) -> float | None:
    """How long a request that has just come waited for a thread of the app; None where Apache does not tell."""
    try:
        since = float(environ[QUEUE_START_KEY])
    except (KeyError, ValueError):
        return None
    # The clock may have been set meanwhile.
    return max(0.0, time.time() - since)


def _seconds(text: str, most_seconds: float) -> float:
    try:
        # Python reads 1_0 as 10, which nobody who sends that means (app/plain_numbers.py, which ops does without).
        seconds = math.nan if "_" in text else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= most_seconds:
        raise OptionError(
            "%(name)s is %(value)s.",
            hint="Seconds, more than 0 and at most %(most)g.",
            name=HEADER,
            value=repr(text[:40]),
            most=most_seconds,
        )
    return seconds
