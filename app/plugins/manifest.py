"""What a plugin says of itself: plugin.toml, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cask
from app.config import did_you_mean, plugin_settings
from app.config.plugin_settings import FILE, PluginSetting, read_table
from app.config.values import PLUGIN_NAME
from app.errors import PluginError
from app.plugins import applications
from app.plugins.applications import Application
from cask import renamed

KEYS = ("name", "version", "cask", "navigation", "settings", "content_security_policy", "wsgi")
BOUND = re.compile(r"(>=|<=|==|<|>)\s*(\d+)(?:\.0)*")
COMPARED = {">=": int.__ge__, "<=": int.__le__, "==": int.__eq__, "<": int.__lt__, ">": int.__gt__}
# Plugins are imported below it.
PARENT = "cask_plugins"
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,39}")
DIRECTIVE = re.compile(r"[a-z]+(-[a-z]+)*")
# Neither ends a header nor begins another directive.
SOURCE = re.compile(r"[^\s;,\"]+")


@dataclass(frozen=True)
class Place:
    """A link in the navigation: the endpoint of a page and the English words on it."""

    endpoint: str
    words: str


@dataclass(frozen=True)
class Manifest:
    """One plugin. ``policy``: directive → what its pages may load besides."""

    name: str
    version: str
    folder: Path
    navigation: tuple[Place, ...]
    settings: tuple[PluginSetting, ...]
    policy: Mapping[str, tuple[str, ...]]
    application: Application | None = None
    # Old names that it uses, in words.
    notes: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """Under which it is imported, so that it takes no name from another library."""
        return f"{PARENT}.{self.name}"


def read(folder: Path) -> Manifest:
    """The plugin in a folder. Raises PluginError."""
    path = folder / FILE
    table = read_table(path)
    old = renamed.in_table(path, table)
    for key in table:
        if key not in KEYS:
            raise PluginError(f"{path} says {key!r}; expected {', '.join(KEYS)}.{did_you_mean(key, KEYS)}")
    if not PLUGIN_NAME.fullmatch(folder.name) or table.get("name") != folder.name:
        raise PluginError(
            f"{path}: name is {table.get('name')!r} in the folder {folder.name!r}; expected the folder's name, of small"
            " letters, digits and _, at most 40."
        )
    version = str(table.get("version", ""))
    if not VERSION.fullmatch(version):
        raise PluginError(f'{path}: version is {version!r}; expected one such as "1.0".')
    _check_interface(path, table.get("cask"))
    settings = plugin_settings.declared(path, folder.name)
    application = applications.read(folder, table["wsgi"], path) if "wsgi" in table else None
    rows = (_navigation(path, table), settings, _policy(path, table), application)
    notes = (*old, *renamed.in_code(() if application else sources(folder)))
    return Manifest(folder.name, version, folder, *rows, notes=tuple(map(str, notes)))


def sources(folder: Path) -> Iterator[Path]:
    """A plugin's modules and those of its packages, without tests and libraries."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each != "tests" and Path(place, each, "__init__.py").exists())
        yield from (Path(place, each) for each in sorted(names) if each.endswith(".py"))


def _check_interface(path: Path, wanted: Any) -> None:
    """Whether this Cask is one that the plugin was written for."""
    bounds = [BOUND.fullmatch(part.strip()) for part in str(wanted or "").split(",")]
    if not all(bounds):
        raise PluginError(f'{path}: cask is {wanted!r}; expected versions of the interface such as ">=1,<2".')
    for bound in bounds:
        if bound and not COMPARED[bound[1]](cask.API_VERSION, int(bound[2])):
            raise PluginError(
                f"{path}: it is written for cask {wanted}, and this is {cask.API_VERSION}; take the release of the"
                " plugin for this Cask, or change the line once its tests pass."
            )


def _navigation(path: Path, table: dict[str, Any]) -> tuple[Place, ...]:
    rows = table.get("navigation", [])
    rows = [rows] if isinstance(rows, dict) else rows
    places = []
    for row in rows if isinstance(rows, list) else [rows]:
        texts = isinstance(row, dict) and all(isinstance(each, str) and each for each in row.values())
        if not texts or row.keys() != {"endpoint", "words"}:
            raise PluginError(
                f"{path}: navigation has {row!r}; expected the endpoint of a page and the words on its link, such as"
                f' {{ endpoint = "{path.parent.name}.page", words = "Claims" }}.'
            )
        places.append(Place(row["endpoint"], row["words"]))
    return tuple(places)


def _policy(path: Path, table: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    rows = table.get("content_security_policy", {})
    for name, sources in rows.items() if isinstance(rows, dict) else [("", rows)]:
        is_list = isinstance(sources, list) and all(
            isinstance(each, str) and SOURCE.fullmatch(each) for each in sources
        )
        if not DIRECTIVE.fullmatch(name) or not is_list:
            raise PluginError(
                f"{path}: content_security_policy has {name} = {sources!r}; expected a directive and a list of sources,"
                ' such as img-src = ["https://tiles.example.org"].'
            )
    return {name: tuple(sources) for name, sources in rows.items()}
