"""What bodies take is held from their head to their end, and refused before they are read."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from flask import Flask, g, request

from app.errors import MemoryShortError, RequestError, RequestTooLargeError
from app.inference.memory_budget import Budget
from app.web.middleware import body_memory

MEGABYTE = 1024**2


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return Budget.of(100 * MEGABYTE, tmp_path)


@pytest.fixture
def app(budget: Budget) -> Flask:
    made = Flask("test")
    made.testing = True

    @made.before_request
    def note_deadline() -> None:
        g.deadline = time.monotonic() + 0.05

    body_memory.init_app(made, budget)

    @made.post("/")
    def read() -> dict[str, int]:
        body = request.get_data()
        body_memory.hold_json(body)
        return {"held": budget.used_bytes, "read": len(body)}

    return made


def test_body_is_held_by_its_length_until_its_request_has_ended(app: Flask, budget: Budget) -> None:
    answer = app.test_client().post("/", data=bytes(30_000)).json

    assert answer == {"held": 60_000, "read": 30_000}
    assert budget.used_bytes == 0


def test_body_without_a_length_is_held_as_it_comes(app: Flask, budget: Budget) -> None:
    answer = app.test_client().post(
        "/",
        input_stream=io.BytesIO(bytes(30_000)),
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )

    assert answer.json == {"held": 60_000, "read": 30_000}
    assert budget.used_bytes == 0


def test_body_that_finds_no_room_is_refused_before_it_is_read(app: Flask, budget: Budget) -> None:
    held = budget.hold("body")
    held.grow(28 * MEGABYTE, time.monotonic(), "Another")
    stream = io.BytesIO(bytes(4 * MEGABYTE))

    with pytest.raises(MemoryShortError, match="The request's body needs 8 MB"):
        app.test_client().post("/", input_stream=stream, content_length=4 * MEGABYTE)

    assert stream.tell() == 0
    held.close()
    assert budget.used_bytes == 0


def test_body_that_never_fits_is_too_large(app: Flask) -> None:
    with pytest.raises(RequestTooLargeError, match="has 20971520 bytes and needs 41943040 of memory; at most 31457280"):
        app.test_client().post("/", data=bytes(20 * MEGABYTE))


@pytest.mark.parametrize(
    ("body", "least"),
    [(b"[" + b"[]," * 50_000 + b"[]]", 88 * 50_000), (b"[" + b"1.5," * 50_000 + b"1]", 40 * 50_000)],
)
def test_json_is_held_by_what_it_is_made_of(app: Flask, body: bytes, least: int) -> None:
    assert app.test_client().post("/", data=body).json["held"] > 2 * len(body) + least  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" + b"{}," * 29_999 + b"{}]", "30000 objects; at most 20000"),
        (b"{" + b'"a" : 1,' * 29_999 + b'"a":1}', "30000 names; at most 20000"),
    ],
)
def test_json_of_nothing_but_objects_or_names_is_refused(app: Flask, body: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=f"The JSON has {words}"):
        app.test_client().post("/", data=body)
