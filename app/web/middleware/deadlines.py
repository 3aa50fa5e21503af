"""The moment by which the caller wants an answer: X-Request-Timeout in seconds, else the default."""

from __future__ import annotations

import math
import time

from flask import Flask, g, request

from app.config import Settings
from app.errors import OptionError

HEADER = "X-Request-Timeout"


def init_app(app: Flask, settings: Settings) -> None:
    """Note the deadline of each request when it arrives."""

    @app.before_request
    def note_deadline() -> None:
        g.deadline = moment(request.headers.get(HEADER), settings)


def current() -> float:
    """The deadline of the current request, a moment of ``time.monotonic``."""
    return float(g.deadline)


def moment(text: str | None, settings: Settings) -> float:
    """The deadline of a request that has just come, by its header: of ``time.monotonic``. Raises OptionError."""
    seconds = settings.request_timeout_seconds if text is None else _seconds(text, settings.request_max_timeout_seconds)
    return time.monotonic() + seconds


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
