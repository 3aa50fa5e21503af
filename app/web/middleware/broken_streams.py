"""Answers that break off while they are sent: their status is out already, so they are counted and logged here."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from flask import Flask, Response, request

from app.errors import CaskError
from app.telemetry import logs, metrics
from app.web.middleware import request_ids

log = logging.getLogger("cask.web")


def init_app(app: Flask) -> None:
    """Watch what a view streams; an answer that is whole before it is sent costs a look at its type."""
    app.after_request(_watch)


def _watch(response: Response) -> Response:
    # A file is sent as it is; what fails there is the caller's connection.
    if response.is_streamed and not response.direct_passthrough:
        # Werkzeug closes what it sends; from here on that is ours.
        close = getattr(response.response, "close", None)
        if close is not None:
            response.call_on_close(close)
        address = f"{request.method} {request.path}"
        response.response = _watched(response.iter_encoded(), address, request_ids.current())
    return response


def _watched(pieces: Iterable[bytes], address: str, request_id: str) -> Iterator[bytes]:
    try:
        yield from pieces
    except Exception as error:
        code = error.code if isinstance(error, CaskError) else CaskError.code
        metrics.FAILED_PARTS.add(part="stream", code=code)
        token = logs.request_id.set(request_id)
        log.exception("the answer to %s broke off behind its status: %s", address, code)
        logs.request_id.reset(token)
        raise
