"""A Flask app as it was before a plugin touched it, so that a broken one leaves nothing behind."""

from __future__ import annotations

import copy
from typing import Any

from flask import Flask

TABLES = (
    *("view_functions", "blueprints", "before_request_funcs", "after_request_funcs"),
    *("teardown_request_funcs", "teardown_appcontext_funcs", "template_context_processors", "url_value_preprocessors"),
    *("url_default_functions", "error_handler_spec", "wsgi_app"),
)


class Snapshot:
    """Routes, hooks and extensions of an app at one moment. What a plugin does elsewhere is not undone."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._tables = {name: _copied(getattr(app, name)) for name in TABLES}
        # What extensions are is theirs.
        self._tables["extensions"] = dict(app.extensions)
        self._babel = list(app.extensions["babel"].translation_directories)
        self._converters = dict(app.url_map.converters)
        self.rules = list(app.url_map.iter_rules())
        self.views = dict(app.view_functions)

    def handlers(self) -> dict[Any, dict[Any, Any]]:
        """Who handled failures of all addresses: status (None for a class alone) → class → function."""
        found: dict[Any, dict[Any, Any]] = self._tables["error_handler_spec"].get(None, {})
        return found

    def restore(self) -> None:
        """Make the app what it was."""
        for name, table in self._tables.items():
            setattr(self._app, name, table)
        self._app.extensions["babel"].translation_directories[:] = self._babel
        self._app.url_map = found = self._app.url_map_class(host_matching=self._app.url_map.host_matching)
        found.converters = self._converters
        for rule in self.rules:
            found.add(rule.empty())


def _copied(value: Any) -> Any:
    """Tables and lists however deep, in their own types; what they hold stays the same."""
    if isinstance(value, list):
        return [*value]
    if not isinstance(value, dict):
        return value
    copied = copy.copy(value)
    copied.update({key: _copied(each) for key, each in value.items()})
    return copied
