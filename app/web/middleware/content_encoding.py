"""Bodies come as they are: one that is compressed (Content-Encoding) is refused, the same way everywhere."""

from __future__ import annotations

from flask import Flask, request

from app.errors import ContentEncodingError

MAX_SHOWN_CHARACTERS = 40
NONE = ("", "identity")


def init_app(app: Flask) -> None:
    """Refuse before anything reads the body."""
    app.before_request(_refuse_compressed)


def _refuse_compressed() -> None:
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in NONE:
        raise ContentEncodingError(
            "The body is compressed: Content-Encoding is %(coding)s.",
            hint="Send it as it is; images are compressed already.",
            coding=ascii(coding[:MAX_SHOWN_CHARACTERS]),
        )
