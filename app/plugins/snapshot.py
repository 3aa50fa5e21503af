"""A Flask app and its process as they were before a plugin touched them, so that a broken one leaves nothing behind."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flask import Flask

from app.plugins import shared
from app.plugins.shared import ENVIRONMENT, MISSING, Place

TABLES = (
    *("view_functions", "blueprints", "before_request_funcs", "after_request_funcs"),
    *("teardown_request_funcs", "teardown_appcontext_funcs", "template_context_processors", "url_value_preprocessors"),
    *("url_default_functions", "error_handler_spec"),
)
APP = "app.{}"


@dataclass(frozen=True)
class Change:
    """One shared thing that is not as it was. ``word``: what to look for in code; ``now``: MISSING where it is gone."""

    name: str
    word: str
    now: Any


class Snapshot:
    """Routes, hooks, extensions and what all share, at one moment. Threads and files of a plugin are not undone."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._tables = {name: _copied(getattr(app, name)) for name in TABLES}
        self._babel = list(app.extensions["babel"].translation_directories)
        self.rules = list(app.url_map.iter_rules())
        self.views = dict(app.view_functions)
        self._shared = [(place, place.read()) for place in shared.places(app)]
        self._methods = {name: vars(app).get(name) or getattr(app, name) for name in shared.METHODS}
        self._path = list(sys.path)
        self._listeners = shared.listeners()

    def table(self, name: str) -> Any:
        """One of TABLES, as it was."""
        return self._tables[name]

    def method(self, name: str) -> Callable[..., Any]:
        """One of the app's methods, as it was."""
        return self._methods[name]

    def changes(self) -> Iterator[Change]:
        """What a plugin changed that was there for all. What is new has a name that nobody had."""
        for place, before in self._shared:
            now = place.read()
            for key in _changed(place, before, now):
                if place.form == APP and key in shared.METHODS:
                    continue
                yield Change(place.name(key), str(key).rpartition(".")[2], now.get(key, MISSING))
        if sys.path[: len(self._path)] != self._path:
            yield Change("sys.path", "path", sys.path[0])
        for name, listening in shared.listeners().items():
            if listening - self._listeners[name]:
                yield Change(f"who hears flask.{name}", name, MISSING)

    def new_variables(self) -> list[str]:
        """What was added to the environment, as ``os.environ['HTTP_PROXY']``."""
        ((place, before),) = [pair for pair in self._shared if pair[0].form == ENVIRONMENT]
        return [place.name(name) for name in sorted(place.read().keys() - before.keys())]

    def changed_tables(self) -> list[str]:
        """Names of TABLES that are others now: hooks and views, which a plugin adds at a start only."""
        return [name for name, table in self._tables.items() if _copied(getattr(self._app, name)) != table]

    def restore(self) -> None:
        """Make the app what it was, and the process as far as that is known."""
        for place, before in self._shared:
            now = place.read()
            for key in _changed(place, before, now):
                place.put(key, before[key]) if key in before else place.remove(key)
            for key in now.keys() - before.keys() if place.is_apps else ():
                if key in place.read():
                    place.remove(key)
        sys.path[:] = self._path
        shared.silence(self._listeners)
        for name, table in self._tables.items():
            setattr(self._app, name, table)
        self._app.extensions["babel"].translation_directories[:] = self._babel
        self._app.url_map = found = self._app.url_map_class(host_matching=self._app.url_map.host_matching)
        found.converters = self._app.url_map.converters
        for rule in self.rules:
            found.add(rule.empty())


def _changed(place: Place, before: dict[Any, Any], now: dict[Any, Any]) -> list[Any]:
    """Keys whose value is another one, that are gone, or that hide what the class of their holder has."""
    own = (*TABLES, "url_map") if place.form == APP else ()
    changed = [key for key in before if not shared.is_same(before[key], now.get(key, MISSING)) and key not in own]
    return changed + [key for key in now.keys() - before.keys() if key not in own and shared.is_override(place, key)]


def _copied(value: Any) -> Any:
    """Tables and lists however deep, in their own types; what they hold stays the same."""
    if isinstance(value, list):
        return [*value]
    if not isinstance(value, dict):
        return value
    copied = copy.copy(value)
    copied.update({key: _copied(each) for key, each in value.items()})
    return copied
