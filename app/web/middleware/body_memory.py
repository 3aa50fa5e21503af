"""What a request's body may take of the memory that all requests share: known by its length, before it is read."""

from __future__ import annotations

import time
from typing import IO, Any

from flask import Flask, current_app, g, request

from app.errors import RequestError, RequestTooLargeError
from app.inference.memory_budget import Budget, Hold
from app.texts import Text, gettext_noop
from app.web.middleware import deadlines

# As it arrives, and as what is read of it; forms lie in a temporary file meanwhile, which may be memory too.
COPIES = 2
# JSON again as text and as what is decoded of it; each value and list in it takes so much in Python.
JSON_COPIES = 2
LIST_BYTES, OBJECT_BYTES, VALUE_BYTES, TEXT_BYTES = 88, 320, 40, 64
# Each is looked through for keys that stand twice, which takes a microsecond; an image needs three.
MAX_OBJECTS = 20_000
# What an address does not know of them becomes a fault of 1.5 kB each, before the first is told.
MAX_NAMES = 20_000
# Who waits for room keeps a thread; a body that must wait longer may come again.
WAIT_SECONDS = 2.0
WHAT = Text("The request's body")


class CountedInput:
    """A body that does not say how long it is: held as far as it has arrived."""

    def __init__(self, stream: IO[bytes], hold: Hold) -> None:
        self._stream = stream
        self._hold = hold

    def read(self, size: int = -1) -> bytes:
        """Raises MemoryShortError, and what the server raises."""
        data = self._stream.read(size)
        self._hold.grow(COPIES * len(data), _patience(deadlines.current()), WHAT)
        return data

    def __getattr__(self, name: str) -> Any:
        if name in ("readinto", "readline", "readlines", "__iter__"):
            # They would pass the count by.
            raise AttributeError(name)
        return getattr(self._stream, name)


def init_app(app: Flask, budget: Budget) -> None:
    """Hold what each body takes until the request has ended. Refuses with 413 what never fits, else with 503."""

    @app.before_request
    def hold_body() -> None:
        length, is_chunked = request.content_length or 0, "HTTP_TRANSFER_ENCODING" in request.environ
        if not length and not is_chunked:
            return
        hold = g.body_hold = budget.hold("body")
        if is_chunked:
            stream = request.environ["wsgi.input"]
            request.environ["wsgi.input"] = CountedInput(stream, hold)
            return
        hold_bytes(budget, hold, length, deadlines.current())

    @app.teardown_request
    def give_back(_: BaseException | None) -> None:
        hold: Hold | None = g.pop("body_hold", None)
        if hold is not None:
            hold.close()

    app.extensions["budget"] = budget


def hold_bytes(budget: Budget, hold: Hold, length: int, deadline: float) -> None:
    """Hold what a body of so many bytes takes. Raises MemoryShortError, RequestTooLargeError."""
    _grow(budget, hold, COPIES * length, length, deadline)


def hold_json(body: bytes) -> None:
    """Before JSON is parsed: hold what it becomes, by what it is made of.

    Raises RequestError, MemoryShortError, RequestTooLargeError.
    """
    # What is small is not worth counting, it grows to megabytes at most; and may come without a request of Flask.
    if len(body) < 64 * 1024:
        return
    hold: Hold | None = g.get("body_hold")
    if hold is None:
        return
    objects = body.count(b"{")
    _refuse_many(objects, body.count(b":"))
    count = JSON_COPIES * len(body) + LIST_BYTES * body.count(b"[") + OBJECT_BYTES * objects
    count += VALUE_BYTES * body.count(b",") + TEXT_BYTES * (body.count(b'"') // 2)
    _grow(_budget(), hold, count, len(body), deadlines.current())


def _refuse_many(objects: int, names: int) -> None:
    hint = gettext_noop("No request that is understood here needs so many.")
    if objects > MAX_OBJECTS:
        raise RequestError(
            "The JSON has %(count)s objects; at most %(most)s are accepted.", hint=hint, count=objects, most=MAX_OBJECTS
        )
    if names > MAX_NAMES:
        raise RequestError(
            "The JSON has %(count)s names; at most %(most)s are accepted.", hint=hint, count=names, most=MAX_NAMES
        )


def _budget() -> Budget:
    """The budget of the current app."""
    found: Budget = current_app.extensions["budget"]
    return found


def _grow(budget: Budget, hold: Hold, count: int, length: int, deadline: float) -> None:
    most = budget.most("body", count)
    if count > most:
        raise RequestTooLargeError(
            "The request has %(size)s bytes and needs %(count)s of memory; at most %(most)s can be had.",
            hint="Send fewer or smaller images in one request; the operator of this service sets the limit.",
            size=length,
            count=count,
            most=most,
        )
    hold.grow(count, _patience(deadline), WHAT)


def _patience(deadline: float) -> float:
    """Until when a request of this deadline may wait for room; both moments of ``time.monotonic``."""
    return min(deadline, time.monotonic() + WAIT_SECONDS)
