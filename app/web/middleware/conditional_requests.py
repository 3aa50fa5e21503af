"""GET for those who have the answer already: an ETag, and 304 where nothing has changed (RFC 9110, section 13)."""

from __future__ import annotations

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import PreconditionFailed

from app.web import policy
from app.web.middleware import error_handlers

# May be kept by the caller, and is to be asked about each time; not by what stands between, for tokens may differ.
CACHE_CONTROL = "private, no-cache"


def init_app(app: Flask) -> None:
    """Look at the conditions of requests behind the views."""
    app.after_request(compare)


def compare(response: Response) -> Response:
    """The answer, or 304 where the caller has it; for routes whose policy says so."""
    # Answers to a POST are no representations and have no ETag.
    is_asked = request.method in ("GET", "HEAD") and response.status_code == 200
    if is_asked and policy.of(current_app, request.endpoint).is_conditional:
        response.headers["Cache-Control"] = CACHE_CONTROL
        response.add_etag()
        response = response.make_conditional(request)  # type: ignore[assignment]
    # Werkzeug answers 412 with what was asked for, however large it is.
    return error_handlers.answer_http(PreconditionFailed()) if response.status_code == 412 else response
