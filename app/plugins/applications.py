"""A whole WSGI application of somebody else's, as ``[wsgi]`` in plugin.toml says. None of its code runs here."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Mapping
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
# Key → least, most.
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
    processes: int
    threads: int
    timeout_seconds: int | None
    max_body_bytes: int | None
    variables: Mapping[str, str]
    libraries: Path | None
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
    named, mount = APPLICATION.fullmatch(str(row.get("application"))), str(row.get("mount"))
    if named is None or not _is_name_or_call(named[2]):
        raise PluginError(
            f'{file}: [wsgi] application is {row.get("application")!r}; expected module:name such as "shop:app", or a'
            " function that makes it, with plain values: \"shop:create_app('production')\"."
        )
    if not MOUNT.fullmatch(mount):
        raise PluginError(f'{file}: [wsgi] mount is {row.get("mount")!r}; expected a path such as "/shop".')
    module = folder.joinpath(*named[1].split("."))
    if not module.with_suffix(".py").is_file() and not (module / "__init__.py").is_file():
        raise PluginError(f"{file}: [wsgi] application names {named[1]!r}, but there is no {module}.py.")
    environment, variables = _environment(folder, row, file), _variables(row, file)
    own = None if environment else libraries.installed(folder)
    return Application(
        named[1],
        named[2],
        mount,
        environment,
        **_numbers(row, file),
        variables=variables,
        libraries=own,
        **_callers(row, file),
    )


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


def _callers(row: dict[str, Any], file: Path) -> dict[str, Any]:
    """Who may ask, and how often."""
    scope, limit = row.get("scope", ""), row.get("limit", "")
    if scope not in ("", *SCOPES):
        raise PluginError(f"{file}: [wsgi] scope is {scope!r}; expected {', '.join(SCOPES)}, or none at all.")
    found = RATE.fullmatch(str(limit))
    if limit and found is None:
        raise PluginError(f'{file}: [wsgi] limit is {limit!r}; expected a text such as "30 per minute".')
    return {"scope": scope, "limit": f"{found[1]} per {found[2]}" if found else ""}


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


def _numbers(row: dict[str, Any], file: Path) -> dict[str, Any]:
    found = {**dict.fromkeys(NUMBERS), "processes": 1, "threads": 5}
    found |= {key: value for key, value in row.items() if key in NUMBERS}
    for key, (least, most) in NUMBERS.items():
        value = found[key]
        if key in row and (type(value) is not int or not least <= value <= most):
            raise PluginError(f"{file}: [wsgi] {key} is {value!r}; expected a whole number from {least} to {most}.")
    return found


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
