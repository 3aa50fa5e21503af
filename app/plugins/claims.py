"""What a plugin may not take from us or from another plugin: names, templates, addresses, views."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from flask import Flask
from flask.blueprints import Blueprint
from werkzeug.routing import Rule

from app.config import ROOT
from app.config.plugin_settings import PluginSetting
from app.errors import PluginError
from app.plugins import faults, shared
from app.plugins.manifest import Manifest
from app.plugins.shared import MISSING
from app.plugins.snapshot import Snapshot
from app.web import policy

STATIC = "/static/plugins/"
# Apache's own.
RESERVED = re.compile(r"/_[^/]*(/.*)?|/server-status(/.*)?|/up")
OUR_TEMPLATES = ROOT / "app" / "templates"
# A later release of ours may answer there.
OUR_VERSIONS = re.compile(r"/v[0-9]+(/.*)?")
# What a library sets up that Cask has set up already → what to write.
INSTEAD = {
    "app.extensions['babel']": "Cask has Flask-Babel: import gettext from flask_babel; words are in translations/.",
    "app.session_interface": "Sessions are Cask's, in a signed cookie: use flask.session.",
}
# Asked of every address by Flask itself.
OTHER_METHODS = {"OPTIONS", "HEAD"}
# The name of a part tells addresses apart for a view, and for no caller.
PARTS_NAME = re.compile(r"<((?:\w+(?:\(.*?\))?:)?)\w+>")


def check_name(app: Flask, plugin: Manifest, blueprint: Blueprint) -> None:
    """Raises PluginError for the name of a blueprint that is there already."""
    other = app.blueprints.get(blueprint.name)
    if other is not None:
        owner = "Cask" if other.import_name.startswith("app.") else f"another plugin ({other.import_name})"
        raise PluginError(
            f"plugin {plugin.name}: the name of its blueprint, {blueprint.name!r}, is one of {owner}; expected another,"
            f" such as Blueprint({plugin.name!r}, __name__)."
        )


def check_templates(plugin: Manifest, others: Iterable[Path]) -> None:
    """Raises PluginError for a template of a name that is there already: Flask would take the first, silently."""
    folder = plugin.folder / "templates"
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for name in names:
        for owner in (OUR_TEMPLATES, *(each / "templates" for each in others)):
            if (owner / name).is_file():
                raise PluginError(
                    f"plugin {plugin.name}: {folder / name} has the name of {owner / name}; expected another: put it"
                    f" into templates/{plugin.name}/ and render {plugin.name}/{name}."
                )


def check_settings(plugin: Manifest, others: Iterable[PluginSetting]) -> None:
    """Raises PluginError for a setting that another plugin has: ``b_c`` of ``a`` is called like ``c`` of ``a_b``."""
    taken = {one.field: one for one in others}
    for one in plugin.settings:
        if other := taken.get(one.field):
            raise PluginError(
                f"plugin {plugin.name}: [settings.{one.key}] is {one.name}, as is [settings.{other.key}] of plugin"
                f" {other.plugin}; expected another name: one value would be meant for both."
            )


def check_addresses(app: Flask, plugin: Manifest, before: Snapshot) -> list[Rule]:
    """The plugin's own addresses. Raises PluginError where one is, or would hide, an address that was there."""
    known = {id(rule) for rule in before.rules}
    own = [rule for rule in app.url_map.iter_rules() if id(rule) not in known]
    for rule in own:
        other = next((each for each in before.rules if _is_same(rule, each)), None)
        if other is not None or RESERVED.fullmatch(rule.rule):
            taken = f"{other.rule} ({other.endpoint})" if other else "one of Apache's own"
            raise PluginError(
                f"plugin {plugin.name}: its address {rule.rule} ({rule.endpoint}) collides with {taken}; expected one"
                f" that nobody has, such as /{plugin.name}."
            )
        if OUR_VERSIONS.fullmatch(rule.rule):
            raise PluginError(
                f"plugin {plugin.name}: its address {rule.rule} ({rule.endpoint}) lies among those of Cask, whose next"
                f" release may have it; expected one such as /{plugin.name}."
            )
    _check_own_addresses(app, plugin, own)
    for endpoint, view in before.views.items():
        if app.view_functions.get(endpoint) is not view:
            raise PluginError(
                f"plugin {plugin.name}: it replaces the view {endpoint!r}; expected addresses of its own."
            )
    return own


def _check_own_addresses(app: Flask, plugin: Manifest, own: list[Rule]) -> None:
    """Raises PluginError for two views at one address: Flask asks the first, silently."""
    seen: dict[tuple[str, str | None, str | None, str], Rule] = {}
    for rule in own:
        for method in _methods(rule):
            key = (PARTS_NAME.sub("<\\1>", rule.rule), rule.subdomain, rule.host, method)
            other = seen.setdefault(key, rule)
            if other.endpoint != rule.endpoint:
                first, second = (app.view_functions[each.endpoint] for each in (other, rule))
                raise PluginError(
                    f"plugin {plugin.name}: {policy.place(second)}{method} {rule.rule} ({rule.endpoint}) is answered by"
                    f" {other.endpoint} already, {policy.place(first).rstrip(': ')}; expected another address."
                )


def check_mounts(plugin: Manifest, rules: Iterable[Rule], mounts: Iterable[str]) -> None:
    """Raises PluginError for an address that Apache gives to an application of another plugin."""
    for rule, mount in ((rule, mount) for rule in rules for mount in mounts):
        if f"{rule.rule}/".startswith(f"{mount}/"):
            raise PluginError(
                f"plugin {plugin.name}: its address {rule.rule} ({rule.endpoint}) lies below {mount}, where another"
                " plugin's application is; expected one that nobody has."
            )


def check_shared(plugin: Manifest, before: Snapshot) -> None:
    """Raises PluginError where something that Cask and all plugins share is not as it was."""
    for change in before.changes():
        now = "" if change.now is MISSING else f" to {shared.shown(change.name, change.now)}"
        raise PluginError(
            f"plugin {plugin.name}: {faults.mention(plugin, change.word)}it changes {change.name}{now}, which Cask and"
            " all plugins share; expected that it stays as it is. Give what is your own a name of its own, or run this"
            " code as a whole application, by [wsgi] in plugin.toml.",
            hint=INSTEAD.get(change.name, ""),
        )


def _is_same(one: Rule, other: Rule) -> bool:
    """Whether a request exists that both would answer."""
    if not (_methods(one) & _methods(other)) or (one.rule.startswith(STATIC) and not other.rule.startswith(STATIC)):
        return False
    # The rule with a 1 for each part is an address that it answers.
    return any(re.fullmatch(policy.pattern(a), policy.PART.sub("1", b.rule)) for a, b in ((one, other), (other, one)))


def _methods(rule: Rule) -> set[str]:
    return set(rule.methods or ()) - OTHER_METHODS
