"""A whole WSGI application of somebody else's, as ``[wsgi]`` in plugin.toml says. None of its code runs here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask

from app.config import did_you_mean
from app.errors import PluginError
from app.web import policy

KEYS = ("application", "mount", "environment", "processes", "threads")
APPLICATION = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
MOUNT = re.compile(r"(?:/[A-Za-z0-9][A-Za-z0-9_-]*)+")
MOST = 64


@dataclass(frozen=True)
class Application:
    """``environment``: the folder of its virtual environment; that of Cask for None."""

    module: str
    name: str
    mount: str
    environment: Path | None
    processes: int
    threads: int


def read(folder: Path, row: Any, file: Path) -> Application:
    """The application that plugin.toml describes. Raises PluginError."""
    if not isinstance(row, dict):
        raise PluginError(f"{file}: wsgi is {row!r}; expected a table [wsgi].")
    for key in row:
        if key not in KEYS:
            raise PluginError(f"{file}: [wsgi] says {key!r}; expected {', '.join(KEYS)}.{did_you_mean(key, KEYS)}")
    named, mount = APPLICATION.fullmatch(str(row.get("application"))), str(row.get("mount"))
    if named is None:
        raise PluginError(
            f'{file}: [wsgi] application is {row.get("application")!r}; expected module:name such as "shop:app".'
        )
    if not MOUNT.fullmatch(mount):
        raise PluginError(f'{file}: [wsgi] mount is {row.get("mount")!r}; expected a path such as "/shop".')
    module = folder.joinpath(*named[1].split("."))
    if not module.with_suffix(".py").is_file() and not (module / "__init__.py").is_file():
        raise PluginError(f"{file}: [wsgi] application names {named[1]!r}, but there is no {module}.py.")
    return Application(named[1], named[2], mount, _environment(folder, row, file), *_sizes(row, file))


def _environment(folder: Path, row: dict[str, Any], file: Path) -> Path | None:
    given = row.get("environment")
    if given is None:
        return None
    path = folder / str(given)
    if not (path / "bin" / "python").exists():
        raise PluginError(f"{file}: [wsgi] environment is {given!r}; expected a virtual environment, with bin/python.")
    return path.absolute()


def _sizes(row: dict[str, Any], file: Path) -> tuple[int, int]:
    found = (row.get("processes", 1), row.get("threads", 5))
    for key, value in zip(("processes", "threads"), found, strict=True):
        if type(value) is not int or not 1 <= value <= MOST:
            raise PluginError(f"{file}: [wsgi] {key} is {value!r}; expected a whole number from 1 to {MOST}.")
    return found


def check(app: Flask, application: Application, file: Path, taken: list[str]) -> None:
    """Raises PluginError where one of the app's addresses or another mount lies below the mount, or is it."""
    below = re.compile(re.escape(application.mount) + "(/.*)?")
    for other in taken:
        if below.fullmatch(other) or application.mount.startswith(f"{other}/"):
            raise PluginError(f"{file}: [wsgi] mount {application.mount} collides with {other} of another plugin.")
    for rule, _ in policy.routes(app):
        if below.fullmatch(policy.PART.sub("1", rule.rule)):
            raise PluginError(
                f"{file}: [wsgi] mount {application.mount} collides with {rule.rule} ({rule.endpoint}); expected one"
                " that nobody has."
            )
