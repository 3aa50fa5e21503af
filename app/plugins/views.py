"""A plugin's views: mistakes that Flask notices only when somebody asks, or never."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from flask.blueprints import Blueprint
from jinja2 import TemplateNotFound
from werkzeug.routing import Rule

from app.config import did_you_mean
from app.errors import PluginError
from app.plugins.manifest import Manifest
from app.web.policy import place

View = Callable[..., Any]
METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
# What Flask makes no answer of. True and False are numbers.
NO_ANSWER = (type(None), int, float, set, frozenset)


def check_blueprints(plugin: Manifest, blueprints: Iterable[Blueprint]) -> None:
    """Raises PluginError where none has a route or hook: the views were written for something else."""
    if not any(each.deferred_functions or each._blueprints for each in blueprints):
        names = ", ".join(repr(each.name) for each in blueprints)
        raise PluginError(
            f"plugin {plugin.name}: its blueprint {names} has no route; expected some, such as"
            f' @blueprint.get("/{plugin.name}") above a view.'
        )


def check(app: Flask, plugin: Manifest, rules: Iterable[Rule]) -> None:
    """Raises PluginError for a view that could answer nobody."""
    for rule in rules:
        view = app.view_functions[rule.endpoint]
        if rule.websocket:
            raise PluginError(
                f"plugin {plugin.name}: {place(view)}{rule.rule} wants a WebSocket, which WSGI does not carry; expected"
                " a stream of lines (a generator), a page that asks again, or a server of its own beside Cask."
            )
        if other := rule.host or rule.subdomain:
            raise PluginError(
                f"plugin {plugin.name}: {place(view)}{rule.rule} answers to the host {other!r} alone, at which Cask"
                " does not look; expected no host and no subdomain: SERVER_ALIASES has further names of the service."
            )
        if odd := next((each for each in sorted(rule.methods or ()) if not METHOD.fullmatch(each)), None):
            raise PluginError(
                f"plugin {plugin.name}: {place(view)}{rule.rule} takes the method {odd!r}; expected one such as POST."
            )
        if inspect.iscoroutinefunction(view):
            raise PluginError(f"plugin {plugin.name}: {place(view)}async def {view.__name__}; expected def.")
        try:
            inspect.signature(view, follow_wrapped=False).bind(**dict.fromkeys(rule.arguments))
        except TypeError as error:
            parts = ", ".join(sorted(rule.arguments))
            raise PluginError(
                f"plugin {plugin.name}: {place(view)}{_name(view)} does not take what {rule.rule} hands over ({error});"
                f" expected def {_name(view)}({parts})."
            ) from None


def explained(plugin: Manifest, view: View) -> View:
    """The view; where it fails by a newcomer's mistake, the traceback in the log says what to write."""

    @functools.wraps(view)
    def ask(*args: Any, **kwargs: Any) -> Any:
        try:
            answer = view(*args, **kwargs)
        except TemplateNotFound as error:
            error.add_note(_template(plugin, str(error.name)))
            raise
        except SystemExit as error:
            raise RuntimeError(
                f"{place(view)}{_name(view)}() called sys.exit({error.code}); expected an answer, or abort(503)."
            ) from error
        if isinstance(answer, NO_ANSWER):
            raise TypeError(
                f"{place(view)}{_name(view)}() returned {answer!r}; expected a text, a dict, a list or a response:"
                " end it with return."
            )
        return answer

    return ask


def _template(plugin: Manifest, name: str) -> str:
    folder = plugin.folder / "templates"
    there = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    return f"plugin {plugin.name}: there is no {folder / name}; expected it there.{did_you_mean(name, there)}"


def _name(view: View) -> str:
    return getattr(view, "__name__", type(view).__name__)
