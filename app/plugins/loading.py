"""A plugin's package, imported under a name of its own, and what went wrong with it in one line."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import logging
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Blueprint

from app.errors import CaskError, PluginError
from app.plugins.manifest import Manifest

log = logging.getLogger("cask.plugins")

PARENT = "cask_plugins"
LONG_SECONDS = 10.0


def load(plugin: Manifest, values: dict[str, Any]) -> types.ModuleType:
    """Import the package anew. ``values``: its settings, for ``cask.settings``. Raises PluginError."""
    _forget(plugin.package)
    path = plugin.folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(plugin.package, path, submodule_search_locations=[str(plugin.folder)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__cask_settings__"] = types.MappingProxyType(values)
    sys.modules.setdefault(PARENT, types.ModuleType(PARENT)).__path__ = []
    sys.modules[plugin.package] = module
    # What starts the service reads our standard output.
    with telling(plugin), watched(plugin), contextlib.redirect_stdout(sys.stderr):
        spec.loader.exec_module(module)
    return module


def blueprints(module: types.ModuleType) -> list[Blueprint]:
    """Every blueprint of a package, in order; those that belong to another one come with it."""
    found = list(dict.fromkeys(each for each in vars(module).values() if isinstance(each, Blueprint)))
    nested = [child for each in found for child, _ in each._blueprints]
    return [each for each in found if each not in nested]


@contextlib.contextmanager
def watched(plugin: Manifest) -> Iterator[None]:
    """Say where an import is that takes long: nobody would know why the service does not start."""
    thread = threading.get_ident()

    def tell() -> None:
        stack = traceback.extract_stack(sys._current_frames().get(thread))
        log.warning("plugin %s: %sits import takes long", plugin.name, _line(plugin, stack))

    timer = threading.Timer(LONG_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def telling(plugin: Manifest) -> Any:
    """Whatever a plugin's code raises in the block, its end of the process too, is a PluginError with file and line."""
    try:
        yield
    except CaskError as error:
        raise PluginError(f"plugin {plugin.name}: {_where(plugin, error)}{error.message}", hint=error.hint) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"plugin {plugin.name}: {_where(plugin, error)}{_reason(error)}", hint=_hint(error)
        ) from error


def _where(plugin: Manifest, error: BaseException) -> str:
    """``/srv/plugins/claims/views.py, line 7: ``, or nothing where no line of the plugin is to blame."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    return _line(plugin, traceback.extract_tb(error.__traceback__))


def _line(plugin: Manifest, frames: traceback.StackSummary) -> str:
    """The last line of a plugin in a trace."""
    ours = [each for each in frames if Path(each.filename).is_relative_to(plugin.folder)]
    return f"{ours[-1].filename}, line {ours[-1].lineno}: " if ours else ""


def _reason(error: BaseException) -> str:
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {words}".split())


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"A module of its own is imported by a dot: from . import {error.name}. A library must be installed."
    return ""


def _forget(package: str) -> None:
    for name in [each for each in tuple(sys.modules) if each == package or each.startswith(f"{package}.")]:
        del sys.modules[name]
