"""An answer that breaks off behind its status is counted by its code, and logged under its request id."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context

from app.errors import EngineBusyError
from app.telemetry import logs
from app.web.middleware import broken_streams, request_ids

ID = "request-of-a-test"


class Ids(logging.Handler):
    """Under which request id each line was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logs.request_id.get())


@pytest.fixture
def app() -> Flask:
    app = Flask("streams")
    request_ids.init_app(app)
    broken_streams.init_app(app)

    @app.get("/<end>")
    def stream(end: str) -> Any:
        def pieces() -> Iterator[str]:
            yield "one"
            if end == "refused":
                raise EngineBusyError("Too many wait.")
            if end == "broken":
                raise KeyError("two")
            yield "two"

        return "whole" if end == "whole" else stream_with_context(pieces())

    return app


@pytest.mark.parametrize(
    ("end", "parts"),
    [
        ("refused", [("stream", "engine_busy")]),
        ("broken", [("stream", "internal_error")]),
        ("good", []),
        ("whole", []),
    ],
)
def test_stream_that_breaks_off_is_counted(
    app: Flask, failed_parts: list[tuple[str, str]], end: str, parts: list[tuple[str, str]]
) -> None:
    ids = Ids()
    logging.getLogger("cask.web").addHandler(ids)
    try:
        response = app.test_client().get(f"/{end}", headers={request_ids.HEADER: ID}, buffered=False)
        sent = []
        try:
            for piece in response.iter_encoded():
                sent.append(piece)
        except (EngineBusyError, KeyError):
            sent.append(b"(broken)")
    finally:
        logging.getLogger("cask.web").removeHandler(ids)

    assert response.status_code == 200
    assert failed_parts == parts
    assert ids.found == [ID] * len(parts)
    assert sent == {"whole": [b"whole"], "good": [b"one", b"two"]}.get(end, [b"one", b"(broken)"])


def test_caller_who_leaves_breaks_nothing(app: Flask, failed_parts: list[tuple[str, str]]) -> None:
    response = app.test_client().get("/good", buffered=False)
    pieces = iter(response.response)
    next(pieces)
    response.close()

    assert failed_parts == []


@pytest.mark.parametrize("end", ["good", "broken", "gone"])
def test_what_a_view_streams_is_closed(app: Flask, end: str) -> None:
    closed: list[str] = []

    class Pieces:
        """No generator: nobody else would close it."""

        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            if end == "broken":
                raise KeyError("two")
            yield b"two"

        def close(self) -> None:
            closed.append(end)

    app.add_url_rule("/own", "own", lambda: Response(Pieces()))
    answer = app.test_client().get("/own", buffered=False)

    pieces = answer.iter_encoded()
    assert next(pieces) == b"one"
    if end != "gone":
        with contextlib.suppress(KeyError):
            list(pieces)
    answer.close()

    assert closed == [end]
