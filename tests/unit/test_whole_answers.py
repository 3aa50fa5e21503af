"""How an answer tells Apache that it is whole: what a server of PEP 3333 is given for what an application does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from app.web.whole_answers import END, HEADER, WholeAnswers

LAST = b"\0" + END.encode()
TEXT = ("Content-Type", "text/plain")
LENGTH = ("Content-Length", "2")


class Server:
    """What it was told; as mod_wsgi it wants the headers before the first byte."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, ...]] = []
        self.sent: list[bytes] = []

    def start_response(self, *said: Any) -> Callable[[bytes], object]:
        if self.begun and len(said) == 3:
            raise said[2][1]
        assert not self.begun
        self.begun.append(said)
        return self.sent.append

    def ask(self, application: Any, method: str = "GET") -> Server:
        pieces = WholeAnswers(application)({"REQUEST_METHOD": method}, self.start_response)
        try:
            for piece in pieces:
                assert self.begun
                self.sent.append(piece)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        return self

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.begun[0][1])


class Pieces:
    """An iterable that knows whether it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces, self.closed = pieces, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed += 1


def application(pieces: Iterable[bytes], *headers: tuple[str, str], status: str = "200 OK") -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, [TEXT, *headers])
        return pieces

    return answer


def test_stream_announces_its_end_and_ends_so() -> None:
    pieces = Pieces(b"a", b"b")
    server = Server().ask(application(pieces))

    assert server.headers == dict([TEXT, (HEADER, END)])
    assert server.sent == [b"a", b"b", LAST]
    assert pieces.closed == 1


def test_stream_that_breaks_off_has_no_end() -> None:
    server, pieces = Server(), Pieces(b"a", ValueError("no more"))

    with pytest.raises(ValueError, match="no more"):
        server.ask(application(pieces))

    assert (server.headers[HEADER], server.sent, pieces.closed) == (END, [b"a"], 1)


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("GET", "200 OK", [LENGTH]),
        ("GET", "200 OK", [("content-LENGTH", "2")]),
        ("GET", "204 No Content", []),
        ("GET", "304 Not Modified", []),
        ("HEAD", "200 OK", []),
    ],
)
def test_answer_whose_end_is_known_passes_as_it_is(method: str, status: str, headers: list[tuple[str, str]]) -> None:
    pieces = Pieces(b"a", b"b")
    given = WholeAnswers(application(pieces, *headers, status=status))
    server = Server()

    assert given({"REQUEST_METHOD": method}, server.start_response) is pieces
    assert server.begun == [(status, [TEXT, *headers])]


@pytest.mark.parametrize("pieces", [[b"a", b"bc"], (b"abc",), []])
def test_list_gets_its_length(pieces: Iterable[bytes]) -> None:
    server = Server().ask(application(pieces))

    assert server.headers == {"Content-Type": "text/plain", "Content-Length": str(len(b"".join(pieces)))}
    assert server.sent == list(pieces)


@pytest.mark.parametrize("headers", [[], [LENGTH]])
def test_application_that_begins_with_its_first_piece(headers: list[tuple[str, str]]) -> None:
    def late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, *headers])
        yield b"ab"

    server = Server().ask(late)

    assert server.sent == [b"ab", *([] if headers else [LAST])]
    assert (HEADER in server.headers) is (not headers)


def test_empty_stream_is_whole() -> None:
    assert Server().ask(application(iter(()))).sent == [LAST]


def test_what_is_written_comes_before_what_is_returned() -> None:
    def writes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [TEXT])(b"a")
        return [b"b"]

    server = Server().ask(writes)

    assert (server.headers[HEADER], server.sent) == (END, [b"a", b"b", LAST])


def test_failure_before_the_first_byte_replaces_what_was_begun() -> None:
    def fails(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [TEXT])
        start_response("500 Oh", [TEXT], (ValueError, ValueError("x"), None))
        return [b"oh"]

    assert Server().ask(fails).begun[0][0] == "500 Oh"


def test_failure_behind_the_first_byte_is_raised() -> None:
    def fails(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        yield b"a"
        start_response("500 Oh", [TEXT], (ValueError, ValueError("too late"), None))

    server = Server()
    with pytest.raises(ValueError, match="too late"):
        server.ask(fails)
    assert server.sent == [b"a"]
