"""Answers to a GET that are given again while nothing they depend on has changed: without the view, without SQLite.

Who polls a job asks the same thing again and again. A view says what its answer depends on, beside its address, its
token and the caller's language: a ``Source``. See docs/decisions/0128-answers-kept-while-nothing-changes.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from wsgiref.types import WSGIEnvironment

from flask import Flask, Response

View = TypeVar("View", bound=Callable[..., Any])

ATTRIBUTE = "cask_kept_by"
# What an answer holds may also end by the time of day, as a job's results do.
LONGEST_SECONDS = 1.0
MAX_BYTES = 8192
MAX_ANSWERS = 256
# What the answer may depend on, beside what a source says.
SAID = ("PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "HTTP_HOST", "wsgi.url_scheme", "HTTP_ACCEPT_LANGUAGE")
# With one of these the answer is another, or none.
CONDITIONS = frozenset(
    {
        *("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE"),
        *("HTTP_IF_RANGE", "HTTP_RANGE"),
    }
)


class Source(Protocol):
    """What an answer depends on."""

    def mark(self) -> Hashable | None:
        """Another one after each change; None where that cannot be told."""

    def settled_mark(self) -> Hashable | None:
        """The mark, where what is read from now on holds as long as ``mark`` gives the same; else None."""


def depends_on(source: Callable[[Flask], Source]) -> Callable[[View], View]:
    """Decorates a view whose answer may be kept."""

    def note(view: View) -> View:
        setattr(view, ATTRIBUTE, source)
        return view

    return note


def source_of(app: Flask, view: Callable[..., Any]) -> Source | None:
    """What the answers of a view depend on; None where they are not kept."""
    named: Callable[[Flask], Source] | None = getattr(view, ATTRIBUTE, None)
    return None if named is None else named(app)


@dataclass(frozen=True)
class Kept:
    """An answer of 200 as the view gave it, and until when it may be given again."""

    mark: Hashable
    until: float
    headers: list[tuple[str, str]]
    # What follows those that tell of the caller's limits.
    last_headers: list[tuple[str, str]]
    body: bytes


class KeptAnswers:
    """Those of one process. Thread-safe: each step on the table is one step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, Kept] = {}

    def find(self, source: Source, key: Hashable) -> Kept | None:
        """The answer to the same request, if it is still right."""
        kept = self._kept.get(key)
        if kept is None or self._clock() >= kept.until or source.mark() != kept.mark:
            return None
        return kept

    def keep(
        self, key: Hashable, mark: Hashable | None, response: Response, last_headers: Iterable[tuple[str, str]]
    ) -> None:
        """Give this answer again, where that may be."""
        if mark is None or response.status_code != 200 or not response.is_sequence:
            return
        body = response.get_data()
        if len(body) > MAX_BYTES:
            return
        if len(self._kept) >= MAX_ANSWERS:
            self._kept.clear()
        until = self._clock() + LONGEST_SECONDS
        self._kept[key] = Kept(mark, until, response.headers.to_wsgi_list(), list(last_headers), body)


def key(environ: WSGIEnvironment, caller: Hashable) -> Hashable | None:
    """What equal requests have in common; None for one that is not like others."""
    if environ["REQUEST_METHOD"] != "GET" or not CONDITIONS.isdisjoint(environ):
        return None
    return (*(environ.get(name) for name in SAID), caller)
