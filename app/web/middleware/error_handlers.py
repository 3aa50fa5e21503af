"""Every failure in one shape: an RFC 9457 problem document, or for people a page with the same words."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import tempfile
from collections.abc import Callable

from flask import Flask, Response, current_app, jsonify, make_response, render_template, request
from werkzeug.exceptions import (
    BadRequestKeyError,
    ClientDisconnected,
    HTTPException,
    InternalServerError,
    RequestEntityTooLarge,
)

from app.errors import CallerGoneError, CaskError, RequestError, TemporaryFullError
from app.telemetry import metrics
from app.texts import gettext_noop
from app.web import policy
from app.web.middleware import accept_language, body_limits, request_ids, request_metrics

log = logging.getLogger("cask.web")

MEDIA_TYPE = "application/problem+json"
MAX_SHOWN_CHARACTERS = 200
# The blueprint that draws them; an app without it answers all alike.
PAGES = "pages"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What mod_wsgi raises where the caller has gone.
BROKEN_READ = "request data read error"

# What Werkzeug itself refuses, in our words: status → code, title, detail, hint.
HTTP_FAILURES = {
    400: (
        "bad_request",
        gettext_noop("The request is malformed"),
        gettext_noop("%(address)s: the request is malformed."),
        gettext_noop("GET /docs shows the shape of requests."),
    ),
    404: (
        "not_found",
        gettext_noop("There is nothing at this address"),
        gettext_noop("%(address)s: there is nothing at this address."),
        gettext_noop("See whether it is typed right; GET /docs shows all addresses of the API."),
    ),
    405: (
        "method_not_allowed",
        gettext_noop("This address does not take that method"),
        gettext_noop("%(address)s: this address does not take that method."),
        gettext_noop("The Allow header lists those it takes."),
    ),
    412: (
        "precondition_failed",
        gettext_noop("The condition of the request does not hold"),
        gettext_noop("%(address)s: the condition of the request does not hold."),
        gettext_noop("Ask without If-Match, or with the ETag of the newest answer."),
    ),
    415: (
        "media_type_unsupported",
        gettext_noop("The Content-Type is not accepted"),
        gettext_noop("%(address)s: the Content-Type is not accepted."),
        gettext_noop("Use multipart/form-data, image/* or JSON."),
    ),
    416: (
        "range_unsatisfiable",
        gettext_noop("There are no such bytes"),
        gettext_noop("%(address)s: there are no such bytes."),
        gettext_noop("Ask without Range, or for less."),
    ),
}
# How to come in (RFC 6750). With an error in it, clients know that another token is needed, not the same once more.
CHALLENGE = 'Bearer realm="cask"'
CHALLENGES = {
    "token_missing": CHALLENGE,
    "token_invalid": CHALLENGE + ', error="invalid_token"',
    "scope_missing": CHALLENGE + ', error="insufficient_scope"',
}

Shape = Callable[[CaskError], Response]
# Blueprint → how its protocol tells failures, and the same for what is asked below an address; see ``shape``.
SHAPES: dict[str, Shape] = {}
SHAPES_BELOW: dict[str, Shape] = {}


def init_app(app: Flask) -> None:
    """Answer failures of views and guards here, and nowhere else."""
    # Chosen now: a folder that is full when it is first asked for passes for none at all, for ever.
    with contextlib.suppress(FileNotFoundError):
        tempfile.gettempdir()
    app.register_error_handler(CaskError, answer)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(Exception, _answer_unexpected)


def answer(error: CaskError) -> Response:
    """The response for a failure that we know by name."""
    log_failure(error)
    response = _shaped(error)
    add_retry_after(response, error.retry_after_seconds)
    response.headers.update(error.headers)
    if error.code in CHALLENGES:
        response.headers["WWW-Authenticate"] = CHALLENGES[error.code]
    return response


def answer_http(error: HTTPException) -> Response:
    """The response for a failure that Flask or Werkzeug names by its status."""
    if isinstance(error, RequestEntityTooLarge):
        return answer(body_limits.too_large(request.content_length, request.max_content_length or 0))
    if isinstance(error, ClientDisconnected):
        return _answer_gone()
    if isinstance(error, InternalServerError) and isinstance(error.original_exception, Exception):
        # What a view returned could not be made an answer of, or a hook behind it failed.
        return _answer_unexpected(error.original_exception)
    status = error.code or 500
    if status < 400:
        # A redirect is no failure.
        return Response(error.get_response(request.environ).get_data(), status, error.get_headers(request.environ))
    code, title, words, hint = HTTP_FAILURES.get(status, (f"http_{status}", error.name, "%(address)s: %(what)s.", ""))
    failure = RequestError(
        _own_words(error) or words,
        hint=hint,
        address=f"{request.method} {request.path[:MAX_SHOWN_CHARACTERS]}",
        what=error.name,
        words=error.description,
        name=next(iter(error.args), ""),
    )
    failure.status, failure.code, failure.title = status, code, title
    response = answer(failure)
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _own_words(error: HTTPException) -> str:
    """What a view says itself, as in ``abort(409, "this seat is taken")``, or misses; empty where it says nothing."""
    if isinstance(error, BadRequestKeyError):
        return gettext_noop("%(address)s: the request has no field %(name)s.") if error.args else ""
    return "%(words)s" if "description" in vars(error) else ""


def add_retry_after(response: Response, seconds: float | None) -> None:
    """Say when to come again, where that is known."""
    response.headers.update(retry_after(seconds))


def retry_after(seconds: float | None) -> dict[str, str]:
    """The header that says when to come again, in whole seconds and at least one; none where that is not known."""
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def log_failure(error: CaskError) -> None:
    """Count it, and one line: a caller's mistake is news, our own trouble a warning."""
    metrics.REFUSED.add(code=error.code, by="app")
    if error.status >= 500:
        log.warning("%s: %s", error.code, error.message)
    else:
        log.info("refused with %d %s: %s", error.status, error.code, error.message)


def shape(blueprint: str, answer: Shape, below: str = "") -> None:
    """Answer failures of a blueprint as its protocol wants them, in place of a problem document.

    ``below``: an address; unknown ones below it are the protocol's too.
    """
    SHAPES[blueprint] = answer
    if below:
        SHAPES_BELOW[below] = answer


def _shaped(error: CaskError) -> Response:
    if request.blueprint in SHAPES:
        return SHAPES[request.blueprint](error)
    for address, answer_below in SHAPES_BELOW.items():
        if f"{request.path}/".startswith(f"{address}/"):
            return answer_below(error)
    return _page(error) if _wants_page() else _problem(error)


def _answer_unexpected(error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return answer(
            TemporaryFullError(
                "The server has no room for the temporary files of this request.",
                hint="Send it again later, or less at once; if it stays so, tell the operator of this service.",
            )
        )
    if current_app.debug:
        raise error
    if isinstance(error, OSError) and BROKEN_READ in str(error):
        return _answer_gone()
    # A stack trace means that we have a fault; the caller gets the id under which the log has it.
    log.error("unexpected failure in %s %s", request.method, request.path, exc_info=error)
    return answer(
        CaskError("Something went wrong on our side.", hint="Tell the operator of this service the request id.")
    )


def _answer_gone() -> Response:
    """For a caller who left while the request was read. One that only stopped sending reads this answer."""
    request.environ[request_metrics.GONE_KEY] = True
    return answer(CallerGoneError("The request ended before it was whole.", hint="Send all that its head announces."))


def _problem(error: CaskError) -> Response:
    language = accept_language.asked()
    response = jsonify(error.to_problem(request_ids.current(), accept_language.speaker(language)))
    response.status_code = error.status
    response.content_type = MEDIA_TYPE
    return accept_language.mark(response, language)


def _page(error: CaskError) -> Response:
    wait = retry_after(error.retry_after_seconds).get("Retry-After")
    page = render_template("failure.html", error=error, request_id=request_ids.current(), retry_after_seconds=wait)
    return make_response(page, error.status)


def _wants_page() -> bool:
    if PAGES not in current_app.blueprints:
        return False
    if policy.of(current_app, request.endpoint).is_page:
        return True
    if request.blueprint is not None or request.path.startswith(("/v1", "/static")):
        return False
    accepted = request.accept_mimetypes
    return accepted.best_match(("application/json", "text/html")) == "text/html" and accepted["text/html"] > 0
