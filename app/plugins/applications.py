"""A whole WSGI application of somebody else's, as ``[wsgi]`` in plugin.toml says. None of its code runs here."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask

from app.config import did_you_mean
from app.config.plugin_settings import STATE
from app.errors import PluginError
from app.plugins import libraries
from app.web import policy
from cask.web import RATE

KEYS = (
    *("application", "mount", "environment", "processes", "threads"),
    *("timeout_seconds", "max_body_bytes", "scope", "limit", "variables"),
)
# Of the token that callers need.
SCOPES = ("predict", "admin", "any")
# Where an application finds its folder below STATE_DIR; apache/application.py looks there too.
OWN_FOLDER = "APPLICATION_STATE"
APPLICATION = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(.+)")
MOUNT = re.compile(r"(?:/[A-Za-z0-9][A-Za-z0-9_-]*)+")
VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", re.MULTILINE)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NUMBERS = {"processes": (1, 64), "threads": (1, 64), "timeout_seconds": (1, 3600), "max_body_bytes": (1, 1 << 40)}


@dataclass(frozen=True)
class Application:
    """``environment``: the folder of its virtual environment; that of Cask for None.

    ``libraries``: the folder of what its requirements.txt names, which it has instead of Cask's packages.
    ``timeout_seconds``, ``max_body_bytes``: those of the service for None. ``variables``: what it finds in os.environ.
    ``scope``: of the token that callers need; none is asked for where it is empty. ``limit``: of each caller; empty.
    """

    module: str
    name: str
    mount: str
    environment: Path | None
    variables: Mapping[str, str]
    libraries: Path | None
    processes: int = 1
    threads: int = 5
    timeout_seconds: int | None = None
    max_body_bytes: int | None = None
    scope: str = ""
    limit: str = ""

    def variables_in(self, folder: Path) -> dict[str, str]:
        """Its variables, where ``folder`` is its own below STATE_DIR; with that folder itself."""
        given = {name: value.replace(STATE, str(folder)) for name, value in self.variables.items()}
        return {OWN_FOLDER: str(folder), **given}


def read(folder: Path, row: Any, file: Path) -> Application:
    """The application that plugin.toml describes. Raises PluginError."""
    if not isinstance(row, dict):
        raise PluginError(f"{file}: wsgi is {row!r}; expected a table [wsgi].")
    for key in row:
        if key not in KEYS:
            raise PluginError(f"{file}: [wsgi] says {key!r}; expected {', '.join(KEYS)}.{did_you_mean(key, KEYS)}")
    for key, (fits, words) in EXPECTED.items():
        if (key in row or key in NEEDED) and not fits(row.get(key)):
            raise PluginError(f"{file}: [wsgi] {key} is {row.get(key)!r}; expected {words}.")
    module, _, name = row["application"].partition(":")
    place = folder.joinpath(*module.split("."))
    if not place.with_suffix(".py").is_file() and not (place / "__init__.py").is_file():
        raise PluginError(f"{file}: [wsgi] application names {module!r}, but there is no {place}.py.")
    environment, variables = _environment(folder, row, file), _variables(row, file)
    own = None if environment else libraries.installed(folder)
    more = {key: row[key] for key in (*NUMBERS, "scope") if key in row}
    limit = RATE.sub(r"\1 per \2", row.get("limit", ""))
    return Application(module, name, row["mount"], environment, variables, own, **more, limit=limit)


def _is_name_or_call(text: str) -> bool:
    """A name, or a call of one with plain values; apache/application.py reads it alike."""
    try:
        found = ast.parse(text, mode="eval").body
        if isinstance(found, ast.Call):
            for value in (*found.args, *(each.value for each in found.keywords)):
                ast.literal_eval(value)
            # No **values.
            found = found.func if all(each.arg for each in found.keywords) else found
    except (SyntaxError, ValueError):
        return False
    return isinstance(found, ast.Name)


def _is_target(value: Any) -> bool:
    found = APPLICATION.fullmatch(str(value))
    return found is not None and _is_name_or_call(found[2])


def _is_number(least: int, most: int) -> tuple[Callable[[Any], object], str]:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


# Key → whether a value will do, and what is expected, in words.
EXPECTED: dict[str, tuple[Callable[[Any], object], str]] = {
    "application": (
        _is_target,
        'module:name such as "shop:app", or a function that makes it, with plain values:'
        " \"shop:create_app('production')\"",
    ),
    "mount": (lambda value: MOUNT.fullmatch(str(value)), 'a path such as "/shop"'),
    "scope": (lambda value: value in ("", *SCOPES), f"{', '.join(SCOPES)}, or none at all"),
    "limit": (lambda value: value == "" or RATE.fullmatch(str(value)), 'a text such as "30 per minute"'),
    **{key: _is_number(*bounds) for key, bounds in NUMBERS.items()},
}
NEEDED = ("application", "mount")


def _environment(folder: Path, row: dict[str, Any], file: Path) -> Path | None:
    given = row.get("environment")
    if given is None:
        return None
    path = folder / str(given)
    if not os.access(path / "bin" / "python", os.X_OK):
        raise PluginError(
            f"{file}: [wsgi] environment is {given!r}; expected a virtual environment, with bin/python that the"
            " service's user may run. An image takes none: leave the line out, and make plugin-install"
            f" NAME={folder.name} locks and installs requirements.txt."
        )
    made = VERSION.search(_text(path / "pyvenv.cfg"))
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if made and made[1] != ours:
        raise PluginError(
            f"{file}: [wsgi] environment {given!r} was made with Python {made[1]}, and Apache runs {ours}; make it anew"
            f" with python{ours} -m venv {path}."
        )
    return path.absolute()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _variables(row: dict[str, Any], file: Path) -> dict[str, str]:
    rows = row.get("variables", {})
    for name, value in rows.items() if isinstance(rows, dict) else [("", rows)]:
        if not VARIABLE.fullmatch(name) or not isinstance(value, str) or "\0" in value:
            raise PluginError(
                f"{file}: [wsgi] variables has {name} = {value!r}; expected a name and a text, such as"
                ' DATABASE_URL = "sqlite:///{state}/shop.db".'
            )
    return dict(rows)


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
