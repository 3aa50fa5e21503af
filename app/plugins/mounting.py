"""Every plugin put on the app, or told why not. What is ours stays ours: names, addresses, templates, views."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Response, send_from_directory
from flask.blueprints import Blueprint
from werkzeug.routing import Rule

from app.config import Settings, plugin_settings
from app.config.plugin_settings import PluginSetting
from app.errors import CaskError, PluginError
from app.plugins import applications, claims, faults, hooks, libraries, loading, manifest, views
from app.plugins.applications import Application
from app.plugins.claims import STATIC
from app.plugins.manifest import Manifest
from app.plugins.snapshot import Snapshot
from app.storage import json_files
from app.web import policy
from app.web.middleware import rate_limits, security_headers
from app.web.ops.plugins import FILE, SERVING, PluginRow
from app.web.pages.navigation import EXTENSION as NAVIGATION
from app.web.pages.navigation import NavigationEntry

log = logging.getLogger("cask.plugins")

EXTENSION = "plugins"
FILE_MAX_AGE_SECONDS = 3600


@dataclass(frozen=True)
class Plugin:
    """How one plugin is. ``reason``: why it is left out; empty while it serves. ``patterns``: of its addresses.

    ``methods``: those that its addresses take.
    """

    name: str
    version: str = ""
    reason: str = ""
    folder: Path = Path()
    patterns: tuple[str, ...] = ()
    content_security_policy: str = ""
    application: Application | None = None
    settings: tuple[PluginSetting, ...] = ()
    methods: frozenset[str] = frozenset()

    def row(self) -> PluginRow:
        """For /status."""
        state = "left out" if self.reason else SERVING
        return {"name": self.name, "version": self.version, "state": state, "reason": self.reason}


def mount(app: Flask, settings: Settings) -> None:
    """Put all chosen plugins on the app. Raises PluginError, SettingsError where PLUGINS_ON_ERROR is ``stop``."""
    app.extensions[EXTENSION] = found = list[Plugin]()
    app.extensions[NAVIGATION] = []
    try:
        chosen = plugin_settings.folders(settings)
    except PluginError as error:
        _leave_out(settings, found, Path("PLUGINS"), error)
        return
    for folder in chosen:
        before = Snapshot(app)
        try:
            plugin = manifest.read(folder)
            for note in plugin.notes:
                log.warning("plugin %s: %s", plugin.name, note)
            found.append(_mount(app, settings, plugin, before))
        except CaskError as error:
            before.restore()
            _leave_out(settings, found, folder, error)


def note(app: Flask, state_dir: Path) -> None:
    """Tell the processes that mount no plugins how they are. Never raises."""
    rows, path = [each.row() for each in app.extensions[EXTENSION]], state_dir / FILE
    try:
        if rows:
            path.parent.mkdir(parents=True, exist_ok=True)
            json_files.replace(path, rows)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be written (%s); /status does not say how the plugins are", path, error)


def _leave_out(settings: Settings, found: list[Plugin], folder: Path, error: CaskError) -> None:
    if settings.plugins_on_error == "stop":
        raise error
    log.error("%s %s The service runs without it, as PLUGINS_ON_ERROR is skip.", error.message, error.hint)
    found.append(Plugin(folder.name, reason=f"{error.message} {error.hint}".strip(), folder=folder))


def _mount(app: Flask, settings: Settings, plugin: Manifest, before: Snapshot) -> Plugin:
    taken = [each.application.mount for each in app.extensions[EXTENSION] if each.application]
    if plugin.application is not None:
        # Apache runs it, in processes of its own.
        applications.check(app, plugin.application, plugin.folder / plugin_settings.FILE, taken)
        return Plugin(plugin.name, plugin.version, "", plugin.folder, application=plugin.application)
    claims.check_settings(plugin, [one for each in app.extensions[EXTENSION] for one in each.settings])
    libraries.add(plugin.folder, [each.folder for each in app.extensions[EXTENSION] if not each.application])
    plugin_settings.own_folder(settings, plugin.name).mkdir(mode=0o700, parents=True, exist_ok=True)
    module = loading.load(plugin, plugin_settings.values(settings, plugin.settings))
    blueprints = loading.blueprints(module)
    init_app = getattr(module, "init_app", None)
    if not blueprints and init_app is None:
        raise loading.no_blueprint(plugin, module)
    if init_app is None:
        views.check_blueprints(plugin, blueprints)
    claims.check_templates(plugin, [each.folder for each in app.extensions[EXTENSION]])
    with faults.telling(plugin):
        if init_app is not None:
            init_app(app)
        _register(app, plugin, blueprints or _carrier(app, plugin))
    rules = claims.check_addresses(app, plugin, before)
    views.check(app, plugin, rules)
    claims.check_mounts(plugin, rules, taken)
    claims.check_shared(plugin, before)
    endpoints = {rule.endpoint for rule in rules}
    hooks.confine(app, plugin, before, endpoints)
    for endpoint in endpoints:
        app.view_functions[endpoint] = views.explained(plugin, app.view_functions[endpoint])
    _limit(app, settings, endpoints)
    _navigate(app, plugin, endpoints)
    return _mounted(plugin, rules)


def _mounted(plugin: Manifest, rules: list[Rule]) -> Plugin:
    """The plugin with the addresses and methods that Apache's configuration is made of."""
    patterns = {policy.pattern(rule) for rule in rules if not rule.rule.startswith(STATIC)}
    methods = frozenset[str]().union(*(rule.methods or () for rule in rules))
    policy_text = security_headers.extended(plugin.policy) if plugin.policy else ""
    addresses = tuple(sorted(patterns))
    return Plugin(
        plugin.name, plugin.version, "", plugin.folder, addresses, policy_text, None, plugin.settings, methods
    )


def _register(app: Flask, plugin: Manifest, blueprints: list[Blueprint]) -> None:
    # A library may have registered them itself.
    for each in (one for one in blueprints if app.blueprints.get(one.name) is not one):
        claims.check_name(app, plugin, each)
        _prepare(plugin, each)
        app.register_blueprint(each)
    _add_files(app, plugin, blueprints)


def _carrier(app: Flask, plugin: Manifest) -> list[Blueprint]:
    """Where a library has the routes: a blueprint for its own templates and static files, where it has some."""
    if not any((plugin.folder / each).is_dir() for each in ("templates", "static")):
        return []
    name = plugin.name if plugin.name not in app.blueprints else f"{plugin.name}_files"
    return [Blueprint(name, plugin.package)]


def _prepare(plugin: Manifest, blueprint: Blueprint) -> None:
    """What every blueprint of a plugin has without a word of its own."""
    templates = plugin.folder / "templates"
    if blueprint.template_folder is None and templates.is_dir():
        blueprint.template_folder = str(templates)
    # At the address that Flask would choose, /static, ours are.
    blueprint.static_folder = None
    if plugin.policy:
        policy_text = security_headers.extended(plugin.policy)

        @blueprint.after_request
        def allow(response: Response) -> Response:
            response.headers.setdefault(security_headers.POLICY, policy_text)
            return response


def _add_files(app: Flask, plugin: Manifest, blueprints: list[Blueprint]) -> None:
    """Static files, below an address of the plugin's own, and translations; ours have the last word."""
    folder = plugin.folder / "static"

    def send(filename: str) -> Response:
        """A file of a plugin's pages."""
        return send_from_directory(folder, filename, max_age=FILE_MAX_AGE_SECONDS)

    policy.put(send, policy.FILE_ROUTE)
    for each in blueprints if folder.is_dir() else ():
        app.add_url_rule(f"{STATIC}{plugin.name}/<path:filename>", f"{each.name}.static", send)
    translations = plugin.folder / "translations"
    if translations.is_dir():
        app.extensions["babel"].translation_directories.insert(0, str(translations))


def _limit(app: Flask, settings: Settings, endpoints: Iterable[str]) -> None:
    """Put limits of their own before the views that have some; others pay nothing."""
    for endpoint in endpoints:
        texts = policy.of(app, endpoint).limits
        if texts:
            rates = rate_limits.of_route(app, settings, endpoint, texts)
            app.view_functions[endpoint] = rate_limits.limited(app.view_functions[endpoint], rates)


def _navigate(app: Flask, plugin: Manifest, endpoints: set[str]) -> None:
    for place in plugin.navigation:
        rule = (
            next((each for each in app.url_map.iter_rules(place.endpoint)), None)
            if place.endpoint in endpoints
            else None
        )
        if rule is None or rule.arguments or "GET" not in (rule.methods or ()):
            raise PluginError(
                f"{plugin.folder / plugin_settings.FILE}: navigation names the endpoint {place.endpoint!r}; expected a"
                f" page without parts in its address, one of {', '.join(sorted(endpoints)) or 'none there'}."
            )
        below = tuple(sorted(endpoints - {each.endpoint for each in plugin.navigation}))
        app.extensions[NAVIGATION].append(NavigationEntry(place.endpoint, place.words, below=below))
