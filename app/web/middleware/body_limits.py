"""How much one request may bring. Apache holds the same limits; these are for every other server."""

from __future__ import annotations

from flask import Flask, request

from app.config import Settings
from app.errors import RequestTooLargeError
from app.texts import Text
from app.web import policy

# A form field is a number or a name, so this is plenty. Not less: Werkzeug holds its own buffer, in which files pass
# in pieces of 64 KiB, to the same limit.
MAX_FORM_BYTES = 512 * 1024


def init_app(app: Flask, settings: Settings) -> None:
    """Refuse by Content-Length before the body is read; Werkzeug cuts off bodies that come without one."""
    app.config["MAX_CONTENT_LENGTH"] = settings.request_max_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_FORM_BYTES
    app.config["MAX_FORM_PARTS"] = settings.request_max_images + 50

    @app.before_request
    def refuse_large_bodies() -> None:
        length, limit = request.content_length, settings.request_max_bytes
        own = policy.of(app, request.endpoint).max_body_bytes
        if own is not None:
            request.max_content_length = limit = min(own, limit)
        if length is not None and length > limit:
            raise too_large(length, limit)


def too_large(length: int | None, limit: int) -> RequestTooLargeError:
    """The error for a body over a limit; ``length`` in bytes where it is known."""
    if length is not None and length <= limit:
        return RequestTooLargeError(
            "The form has too many parts, or a field of more than %(most)s bytes.",
            hint="Send fewer images in one request, and each as a file: a part with a filename.",
            most=MAX_FORM_BYTES,
        )
    size = Text("%(count)s bytes", count=length) if length is not None else Text("more bytes than accepted")
    return RequestTooLargeError(
        "The request has %(size)s; at most %(most)s are accepted.",
        hint="Send fewer or smaller images in one request; the operator of this service sets the limit.",
        size=size,
        most=limit,
    )
