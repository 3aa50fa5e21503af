"""What Cask and all plugins have in common: each may add to it, none may change what is there.

Flask gives everybody the same app, and Python the same modules: a key of the configuration, a method that was replaced,
or a limit of Pillow then holds for every address of the service.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import inspect
import locale
import logging
import os
import re
import signal
import socket
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blinker
from flask import Flask, signals
from werkzeug.utils import cached_property

from app.plugins.manifest import PARENT

# Of a plugin's own addresses alone; see hooks.
METHODS = ("handle_exception", "handle_user_exception", "handle_http_exception")
# Whose names are watched, and those of what lies below them.
PACKAGES = ("app", "cask", "flask", "werkzeug", "jinja2", "PIL")
MODULES = ("builtins", "json", "logging", "os", "signal", "socket", "ssl", "subprocess", "threading", "time")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM)
SCALARS = (bool, int, float, str, bytes, tuple, list, type(None))
MISSING = object()
ENVIRONMENT = "os.environ[{!r}]"
# Where values may be secrets; those are told nobody.
HIDDEN = re.compile(r"(app\.config|os\.environ)\[.*(KEY|SECRET|PASSWORD|TOKEN|URI|URL|DSN)")


@dataclass(frozen=True)
class Place:
    """One table. ``form``: how code writes an entry. ``is_apps``: what is new in it goes when a plugin is left out."""

    form: str
    read: Callable[[], dict[Any, Any]]
    put: Callable[[Any, Any], None]
    remove: Callable[[Any], None]
    kind: type = object
    is_apps: bool = False

    def name(self, key: Any) -> str:
        """An entry as code writes it."""
        return self.form.format(key)


def places(app: Flask) -> list[Place]:
    """Every table that is watched."""
    # Made when first asked for; until then nothing shows that it was replaced.
    environment, _ = app.jinja_env, app.jinja_loader
    holders = {
        "app": app,
        "app.url_map": app.url_map,
        "app.jinja_env": environment,
        "app.json": app.json,
        "app.session_interface": app.session_interface,
    }
    tables = {
        "app.config": app.config,
        "app.extensions": app.extensions,
        "app.url_map.converters": app.url_map.converters,
        "app.jinja_env.globals": environment.globals,
        "app.jinja_env.filters": environment.filters,
        "app.jinja_env.tests": environment.tests,
    }
    # Last, as each names the others' objects.
    return [
        *(_items(f"{name}[{{!r}}]", table, is_apps=True) for name, table in tables.items()),
        *(_attributes(f"{name}.{{}}", holder, is_apps=True) for name, holder in holders.items()),
        _items(ENVIRONMENT, os.environ),
        dataclasses.replace(_items("sys.modules[{!r}]", sys.modules), read=_libraries),
        *(_attributes(f"{name}.{{}}", holder) for name, holder in _modules()),
        Place("{}", lambda: {name: read() for name, (read, _) in PROCESS.items()}, _put_process, lambda _: None),
    ]


def is_same(before: Any, now: Any) -> bool:
    """Whether nothing was changed: equal, for values of Python's own; else the same object."""
    return before is now or (type(before) is type(now) and isinstance(before, SCALARS) and bool(before == now))


def is_override(place: Place, key: str) -> bool:
    """Whether an attribute that is new hides one of its class."""
    there = inspect.getattr_static(place.kind, key, MISSING)
    return there is not MISSING and not isinstance(there, functools.cached_property | cached_property)


def shown(name: str, value: Any) -> str:
    """The value for a message, at most a few words of it."""
    return "another value" if HIDDEN.match(name) else repr(value)[:80]


def listeners() -> dict[str, set[Any]]:
    """Signal of Flask → its receivers."""
    return {name: set(each.receivers) for name, each in vars(signals).items() if isinstance(each, blinker.Signal)}


def silence(before: dict[str, set[Any]]) -> None:
    """Disconnect from Flask's signals the receivers that were not there ``before``."""
    for name, known in before.items():
        receivers = getattr(signals, name).receivers
        for key in set(receivers) - known:
            receiver = receivers[key]
            getattr(signals, name).disconnect(receiver() if isinstance(receiver, weakref.ref) else receiver)


def _libraries() -> dict[str, Any]:
    """Modules but those of plugins, which are imported anew."""
    return {name: each for name, each in list(sys.modules.items()) if name.partition(".")[0] != PARENT}


def _items(form: str, table: MutableMapping[Any, Any], *, is_apps: bool = False) -> Place:
    return Place(
        form, lambda: dict(table), table.__setitem__, lambda key: table.pop(key, None) and None, is_apps=is_apps
    )


def _attributes(form: str, holder: Any, *, is_apps: bool = False) -> Place:
    def read() -> dict[str, Any]:
        return {key: value for key, value in vars(holder).items() if not key.startswith("_")}

    return Place(
        form, read, functools.partial(setattr, holder), functools.partial(delattr, holder), type(holder), is_apps
    )


def _modules() -> Iterator[tuple[str, Any]]:
    """Modules that all share, and the classes that are made in them."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and (name in MODULES or name.partition(".")[0] in PACKAGES):
            yield name, module
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value.__module__ == name and not key.startswith("_"):
                    yield f"{name}.{key}", value


def _umask() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask"))


def _put_signals(handlers: tuple[Any, ...]) -> None:
    # Of the first thread alone.
    with contextlib.suppress(ValueError, TypeError):
        for number, handler in zip(SIGNALS, handlers, strict=True):
            signal.signal(number, handler)


def _errors_by_warning() -> list[Any]:
    return [each for each in warnings.filters if each[0] == "error"]


def _put_errors_by_warning(before: list[Any]) -> None:
    kept = [each for each in warnings.filters if each[0] != "error" or each in before]
    warnings.filters[:] = kept  # type: ignore[index]


# What no module holds: how it is written → how it is read and put back.
PROCESS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "os.chdir": (os.getcwd, os.chdir),
    "os.umask": (_umask, os.umask),
    "locale.setlocale": (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    "socket.setdefaulttimeout": (socket.getdefaulttimeout, socket.setdefaulttimeout),
    "sys.excepthook": (lambda: sys.excepthook, functools.partial(setattr, sys, "excepthook")),
    "sys.setrecursionlimit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "logging.root.setLevel": (lambda: logging.root.level, logging.root.setLevel),
    "logging.disable": (lambda: logging.root.manager.disable, logging.disable),
    "warnings.simplefilter": (_errors_by_warning, _put_errors_by_warning),
    "gc.disable": (gc.isenabled, lambda is_on: gc.enable() if is_on else gc.disable()),
    "signal.signal": (lambda: tuple(signal.getsignal(each) for each in SIGNALS), _put_signals),
}


def _put_process(name: str, value: Any) -> None:
    PROCESS[name][1](value)
