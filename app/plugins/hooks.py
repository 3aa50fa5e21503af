"""Hooks for all requests that a plugin or its libraries add, in ``init_app`` or by ``before_app_request``.

They hold for the plugin's own addresses. Flask would run them for all: a check of CSRF tokens, a redirect to https or
a ``before_request`` that raises would then be met by every caller of the service.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection
from typing import Any

from flask import Flask, has_request_context, request

from app.errors import PluginError
from app.plugins import shared
from app.plugins.manifest import Manifest
from app.plugins.snapshot import Snapshot
from app.web import policy

log = logging.getLogger("cask.plugins")

Function = Callable[..., Any]
# Table → what a hook in it answers where it does not hold: given its arguments.
HOOKS: dict[str, Function] = {
    "before_request_funcs": lambda: None,
    "after_request_funcs": lambda response: response,
    "teardown_request_funcs": lambda error: None,
    "template_context_processors": dict,
    "url_value_preprocessors": lambda endpoint, values: None,
    "url_default_functions": lambda endpoint, values: None,
}
# What Flask lets a hook raise after the answer is made: the server would send none.
TEARDOWNS = "teardown_request_funcs"


def confine(app: Flask, plugin: Manifest, before: Snapshot, own: Collection[str]) -> None:
    """Let what the plugin added for all addresses hold for ``own``, its endpoints.

    Raises PluginError where it changes hooks that were there.
    """
    count = 0
    for name in HOOKS:
        known = before.table(name)
        for scope, functions in getattr(app, name).items():
            added = [each for each in functions if each not in known.get(scope, ())]
            is_less = len(functions) != len(added) + len(known.get(scope, ()))
            if is_less or (added and scope in before.table("blueprints")):
                where = policy.place(added[0]) if added else ""
                raise PluginError(
                    f"plugin {plugin.name}: {where}it changes {name} of {scope or 'the app'}, which are not its own;"
                    " expected hooks of its blueprint, such as @blueprint.before_request."
                )
            count += len(added) if scope is None else 0
            functions[:] = [_hook(plugin, each, name, scope, own) if each in added else each for each in functions]
    for position, function in enumerate(app.teardown_appcontext_funcs):
        if function not in before.table("teardown_appcontext_funcs"):
            app.teardown_appcontext_funcs[position] = _guarded(plugin, function)
    count += _confine_handlers(app, before, own) + _confine_methods(app, before, own)
    if count:
        log.info("plugin %s: %d hooks for all addresses hold for its own", plugin.name, count)


def _hook(plugin: Manifest, function: Function, table: str, scope: str | None, own: Collection[str]) -> Function:
    done = _guarded(plugin, function) if table == TEARDOWNS else function
    return done if scope is not None else _confined(done, HOOKS[table], own)


def _is_own(own: Collection[str]) -> bool:
    return has_request_context() and request.endpoint in own


def _confined(function: Function, otherwise: Function, own: Collection[str]) -> Function:
    @functools.wraps(function)
    def ask(*args: Any) -> Any:
        return function(*args) if _is_own(own) else otherwise(*args)

    return ask


def _guarded(plugin: Manifest, function: Function) -> Function:
    """What runs when all is answered: where it fails, the log says so and the answer is sent."""

    @functools.wraps(function)
    def ask(error: BaseException | None) -> None:
        try:
            function(error)
        except Exception:
            log.exception("plugin %s: %sits teardown failed", plugin.name, policy.place(function))

    return ask


def _confine_handlers(app: Flask, before: Snapshot, own: Collection[str]) -> int:
    known, count = before.table("error_handler_spec").get(None, {}), 0

    def ours(error: Exception) -> Any:
        for code in (getattr(error, "code", None), None):
            for kind in type(error).__mro__:
                if handler := known.get(code, {}).get(kind):
                    return handler(error)
        raise error

    for code, handlers in app.error_handler_spec[None].items():
        for kind, handler in handlers.items():
            if handler is not known.get(code, {}).get(kind):
                handlers[kind] = _confined(handler, ours, own)
                count += 1
    return count


def _confine_methods(app: Flask, before: Snapshot, own: Collection[str]) -> int:
    """What Flask-RESTful and its kin put in place of the app's own methods."""
    count = 0
    for name in shared.METHODS:
        theirs, ours = vars(app).get(name), before.method(name)
        if theirs is not None and theirs is not ours:
            setattr(app, name, _confined(theirs, ours, own))
            count += 1
    return count
