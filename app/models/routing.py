"""Which version of which model answers one request. Between the file of roles and the predictor; no Flask, no sockets.

The engine moves the pointer by renaming a file. Each web process looks at that file's inode and times before it
chooses, which costs a microsecond, and reads it anew only when it is another one; so all processes agree at once.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app.errors import CaskError, ManifestError, ModelNotFoundError, ModelNotReadyError, RolesInvalidError
from app.models import manifests, roles
from app.models.manifests import Manifest, Task
from app.models.roles import Roles
from app.storage import json_files
from app.texts import Text

log = logging.getLogger("cask.web")

# What a caller may say about the canary: only it, never it, or nothing (its share decides).
CanaryPreference = Literal["always", "never", ""]
# Python seeds its own generator anew in each process, also after a fork; nothing secret depends on it.
Draw = Callable[[], float]


@dataclass(frozen=True)
class Route:
    """One model: its roles, and the manifest of every version that a caller may get."""

    name: str
    roles: Roles
    manifests: dict[str, Manifest]

    @property
    def active(self) -> Manifest:
        return self.manifests[self.roles.active]

    @property
    def shadow(self) -> Manifest | None:
        return self.manifests.get(self.roles.shadow)


@dataclass(frozen=True)
class Broken:
    """A model whose active version cannot be read. ``task``: as far as its manifest still tells; None where not."""

    key: str
    task: Task | None
    error: ManifestError


@dataclass(frozen=True)
class Table:
    """Every model that MODELS serves, in the order in which they answer requests without a name."""

    order: tuple[str, ...] = ()
    routes: dict[str, Route] = field(default_factory=dict)
    broken: dict[str, Broken] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """The version that answers one request, all of it, and the model's other versions at that moment."""

    manifest: Manifest
    route: Route

    @property
    def is_canary(self) -> bool:
        return self.manifest.version == self.route.roles.canary


class Routing:
    """The table of routes, kept up to date. Thread-safe."""

    def __init__(
        self,
        models_dir: Path,
        state_dir: Path,
        selection: Sequence[str],
        draw: Draw = random.random,
        *,
        defaults: Sequence[str] = (),
    ) -> None:
        """``draw`` gives a number in [0, 1) that decides about canaries. ``defaults``: models that come before others
        where a request names none. Raises ManifestError where no model can be read.
        """
        self._models_dir = models_dir
        self._file = os.fspath(roles.path(state_dir))
        self._state_dir = state_dir
        self._selection = selection
        self._draw = draw
        self._defaults = defaults
        self._lock = threading.Lock()
        self._stamp = json_files.stamp(self._file)
        self._table = Table()
        try:
            self._table = self._read()
        except RolesInvalidError as error:
            # The engine says the same, and writes it anew at its next start.
            log.warning("%s: %s %s", error.code, error.message, error.hint)
            self._table = self._build({})

    @property
    def routes(self) -> dict[str, Route]:
        """Model name → route: those of MODELS_DEFAULT first, then as ``roles.settle`` orders them."""
        return self._current().routes

    @property
    def broken(self) -> list[Broken]:
        """The models that nobody gets, because the manifest of their active version cannot be read."""
        return list(self._current().broken.values())

    def _current(self) -> Table:
        if json_files.stamp(self._file) != self._stamp:
            self.refresh()
        return self._table

    def refresh(self) -> None:
        """Read everything anew. What cannot be read leaves the table as it was."""
        with self._lock:
            # Looked at before it is read: a move in between is seen the next time.
            stamp = json_files.stamp(self._file)
            try:
                self._table = self._read()
            except CaskError as error:
                log.warning("versions are unchanged: %s", error.message)
            self._stamp = stamp

    def choose(
        self, task: Task | None, name: str | None = None, version: str | None = None, canary: CanaryPreference = ""
    ) -> Choice:
        """The version for one request: the requested one, else canary or active, as the share and ``canary``
        say; of the first model of the task when no name is given. Raises ModelNotFoundError, and ModelNotReadyError
        where that model cannot be read: another one is not to answer in its place.
        """
        table = self._current()
        for each in [name] if name else table.order:
            if each in table.broken and (name or task is None or table.broken[each].task in (task, None)):
                raise _not_readable(table.broken[each])
            route = table.routes.get(each)
            if route is None or not _is_for(route.active, task):
                continue
            manifest = route.manifests.get(version) if version else self._pick(route, canary)
            if manifest is not None:
                return Choice(manifest, route)
        raise _not_found(table.routes, task, name, version)

    def manifest(self, name: str, version: str) -> Manifest | None:
        """The manifest of any version in the store; None when it cannot be read."""
        route = self._table.routes.get(name)
        if route and version in route.manifests:
            return route.manifests[version]
        try:
            return manifests.read(self._models_dir / name / version)
        except ManifestError:
            return None

    def _pick(self, route: Route, canary: CanaryPreference) -> Manifest:
        candidate = route.manifests.get(route.roles.canary)
        if candidate is None or canary == "never":
            return route.active
        # A draw is less than 1, so that a share of 100 is every request.
        if canary == "always" or self._draw() * roles.MAX_SHARE < route.roles.canary_share:
            return candidate
        return route.active

    def _read(self) -> Table:
        return self._build(roles.read(self._state_dir))

    def _build(self, known: dict[str, Roles]) -> Table:
        settled = roles.settle(self._models_dir, self._selection, known)
        if known and not self._selection:
            # What was added since is not loaded: the engine writes it down at its start, or when it is promoted.
            settled = {name: each for name, each in settled.items() if name in known or name in self._defaults}
        pins = roles.pins(self._models_dir, self._selection)
        for name in self._defaults:
            if name not in settled:
                raise ManifestError(
                    f"MODELS_DEFAULT names {name!r}, which is not served.", hint=f"There are: {', '.join(settled)}."
                )
        # A name twice keeps its first place.
        table = Table(tuple(dict.fromkeys((*self._defaults, *settled))))
        for name in table.order:
            try:
                table.routes[name] = self._route(name, settled[name], pins[name])
            except ManifestError as error:
                self._note_broken(table, name, settled[name].active, error)
        if not table.routes:
            raise next(each.error for each in table.broken.values())
        return table

    def _note_broken(self, table: Table, name: str, version: str, error: ManifestError) -> None:
        """One model that cannot be read is no reason against the others; the engine may go on with what it has."""
        before = self._table.routes.get(name)
        if before is not None:
            log.warning("%s is unchanged: %s", name, error.message)
            table.routes[name] = before
            return
        log.error("model %s@%s cannot be served: %s %s", name, version, error.message, error.hint)
        task = manifests.task_of(self._models_dir / name / version)
        table.broken[name] = Broken(f"{name}@{version}", task, error)

    def _route(self, name: str, known: Roles, pinned: Sequence[str]) -> Route:
        held = [] if roles.is_free(name, self._selection) else pinned
        found = {known.active: manifests.read(self._models_dir / name / known.active)}
        for version in dict.fromkeys((*known.named[1:], *held)):
            try:
                found[version] = manifests.read(self._models_dir / name / version)
            except ManifestError as error:
                # Callers of the active version are not to suffer from another one.
                log.warning("%s@%s cannot be chosen: %s", name, version, error.message)
        return Route(name, known, found)


def _is_for(manifest: Manifest, task: Task | None) -> bool:
    return task in (None, manifest.task) or (task == manifests.CODE and manifest.task in manifests.BY_SIGNATURE)


def _not_readable(broken: Broken) -> ModelNotReadyError:
    return ModelNotReadyError(
        "The model %(name)s failed to load.",
        hint="Take another model, or tell the operator of this service, whose log says why.",
        retry_after_seconds=30.0,
        name=broken.key,
    )


def _not_found(
    routes: dict[str, Route], task: Task | None, name: str | None, version: str | None
) -> ModelNotFoundError:
    there = ", ".join(f"{each.key} ({each.task})" for route in routes.values() for each in route.manifests.values())
    return ModelNotFoundError(
        "There is no model%(name)s%(version)s%(task)s here.",
        hint="There are: %(names)s.",
        name=f" {name}" if name else "",
        version=Text(" of version %(version)s", version=version) if version else "",
        task=Text(" for %(task)s", task=task) if task else "",
        names=there,
    )
