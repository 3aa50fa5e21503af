"""What a plugin's view changes of what all share while it answers: told where people write and test plugins.

A start is watched by ``claims.check_shared``. Here the same is compared after a request, which takes some 40 ms, so
nobody does it in a service that strangers ask.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug.wsgi import ClosingIterator

from app.plugins.snapshot import Snapshot


class RequestWatch:
    """Compares with the moment at which it was made. Each thing that is another one is told once."""

    def __init__(self, app: Flask) -> None:
        self._app, self._before = app, Snapshot(app)
        self._told = set[str]()

    def changes(self) -> list[str]:
        """What is not as it was and was not told before, such as ``os.chdir``."""
        # A new variable is anybody's at a start; later it changes what others do, as HTTP_PROXY does.
        found = [
            *(change.name for change in self._before.changes()),
            *self._before.new_variables(),
            *(f"app.{name}" for name in self._before.changed_tables()),
        ]
        new = [name for name in found if name not in self._told]
        self._told.update(new)
        return new


def told(app: Flask, patterns: Iterable[str]) -> Callable[..., Any]:
    """The app, which says after a request to one of these addresses what that changed; for `make dev`."""
    watch, own = RequestWatch(app), re.compile("|".join(patterns) or r"(?!)")

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # Closed at its end, as a server does: what is torn down is compared too.
        with contextlib.closing(ClosingIterator(app(environ, start_response))) as body:
            yield from body
        if own.fullmatch(environ.get("PATH_INFO", "")):
            for name in watch.changes():
                print(words(name, f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"), file=sys.stderr)

    return answer


def words(name: str, during: str) -> str:
    """For the person who writes the plugin."""
    return (
        f"warn  during {during} {name} was changed, which Cask and all plugins share; it holds for every request from"
        " now on. Give what is your own a name of its own, or run this code as a whole application, by [wsgi]."
    )
