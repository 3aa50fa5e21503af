"""Tells Apache that an answer is whole: without that, one that broke off would look like one that has ended.

Standard library only: ``apache/application.py`` loads it in the environments of other teams.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# By which bytes the answer ends, a zero byte before them. Apache takes both away (apache/modules/mod_whole_answers.c).
HEADER = "Cask-Ends-With"
# Made anew by each process, so that no answer holds it by chance.
END = secrets.token_hex(16)
WITHOUT_BODY = ("1", "204", "304")
Start = Callable[..., Callable[[bytes], object]]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]


class WholeAnswers:
    """WSGI middleware for a process of Apache's. An answer whose length is known beforehand passes as it is."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answer as the application does."""
        if environ["REQUEST_METHOD"] == "HEAD":
            return self._application(environ, start_response)
        answer = _Answer(start_response)
        return answer.of(self._application(environ, answer.start))


class _Answer:
    """One answer, and what follows its last byte."""

    def __init__(self, start_response: Start) -> None:
        self._start_response = start_response
        # What the application wants to begin with, until it is known how the answer will end.
        self._waiting: tuple[Any, ...] | None = None
        self._send: Callable[[bytes], object] | None = None
        self._is_open = False

    def start(self, status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
        """``start_response`` of PEP 3333."""
        if self._is_open or status.startswith(WITHOUT_BODY) or _has_length(headers):
            self._waiting = None
            self._send = self._start_response(status, headers, *rest)
            return self._send
        self._waiting = status, headers, *rest
        return self._write

    def of(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """What is sent for what the application has returned."""
        if self._waiting is not None and isinstance(pieces, list | tuple):
            self._begin(("Content-Length", str(sum(len(piece) for piece in pieces))))
        is_begun = self._send is not None and not self._is_open
        return pieces if is_begun else _Stream(self, pieces)

    def begin(self) -> None:
        """Send the headers, if that is still to be done, and say how the answer will end."""
        if self._waiting is not None:
            self._begin((HEADER, END))
            self._is_open = True

    @property
    def end(self) -> bytes:
        """Its last bytes."""
        return b"\0" + END.encode() if self._is_open else b""

    def _begin(self, header: tuple[str, str]) -> None:
        assert self._waiting is not None
        (status, headers, *rest), self._waiting = self._waiting, None
        self._send = self._start_response(status, [*headers, header], *rest)

    def _write(self, piece: bytes) -> None:
        self.begin()
        assert self._send is not None
        self._send(piece)


class _Stream:
    """Pieces as they come, and the end once all have come."""

    def __init__(self, answer: _Answer, pieces: Iterable[bytes]) -> None:
        self._answer, self._pieces = answer, pieces
        self._sent = self._all()

    def __iter__(self) -> Iterator[bytes]:
        return self._sent

    def close(self) -> None:
        """However it ended; Apache asks for it once."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def _all(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._answer.begin()
            yield piece
        self._answer.begin()
        if end := self._answer.end:
            yield end


def _has_length(headers: list[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-length" for name, _ in headers)
