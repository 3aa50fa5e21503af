"""A plugin's package, imported under a name of its own."""

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
from typing import Any

from flask import Blueprint, Flask

from app.config.plugin_settings import FILE
from app.errors import PluginError
from app.plugins import faults
from app.plugins.manifest import PARENT, Manifest

log = logging.getLogger("cask.plugins")

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
    with faults.telling(plugin), watched(plugin), contextlib.redirect_stdout(sys.stderr):
        spec.loader.exec_module(module)
        faults.check_syntax(plugin)
    return module


def no_blueprint(plugin: Manifest, module: types.ModuleType) -> PluginError:
    """What is to be written where a package has no blueprint, by what it has instead."""
    own = f'blueprint = Blueprint("{plugin.name}", __name__)'
    words = f"has no blueprint; expected {own} there, or init_app(app)."
    application = next((key for key, each in vars(module).items() if isinstance(each, Flask)), "")
    if application:
        words = (
            f"makes an application, {application} = Flask(…); expected {own} and @blueprint above its views, or in"
            f' {FILE} [wsgi] with application = "…:{application}", which runs it as it is.'
        )
    below = (each for name, each in sys.modules.items() if name.startswith(f"{plugin.package}."))
    elsewhere = [each for each in below if blueprints(each)]
    if elsewhere:
        parts = elsewhere[0].__name__.removeprefix(f"{plugin.package}.")
        name = next(key for key, each in vars(elsewhere[0]).items() if isinstance(each, Blueprint))
        words = f"does not hold the blueprint of {elsewhere[0].__file__}; expected from .{parts} import {name}."
    return PluginError(f"plugin {plugin.name}: {module.__file__} {words}")


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
        log.warning("plugin %s: %sits import takes long", plugin.name, faults.line(plugin, stack))

    timer = threading.Timer(LONG_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _forget(package: str) -> None:
    for name in [each for each in tuple(sys.modules) if each == package or each.startswith(f"{package}.")]:
        del sys.modules[name]
