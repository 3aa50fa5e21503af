"""The models that callers may ask for, and how each of their versions is: what is known without reading any image.

Free of numpy and Pillow, for processes that answer questions about the service and predict nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app

from app.config import Settings
from app.errors import CaskError
from app.models.manifests import Manifest
from app.models.roles import ROLES, Role
from app.models.routing import Route, Routing

if TYPE_CHECKING:
    from app.cache.predictions import PredictionCache

# /v1/models may be asked often; the engine need not be for each.
STATUS_AGE_SECONDS = 0.5


class EngineStatus(Protocol):
    """What is needed of the engine; ``EngineClient`` is one."""

    def status(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ModelStatus:
    """One version of a model as callers see it.

    ``state``: ready, loading, failed, unloaded, or unavailable when the engine is away. ``computed_by``: runtime and
    precision, such as ``openvino int8``; ``device``: ``cpu`` or ``cuda:<n>``; ``processor``: what reports call a GPU;
    all three empty until it is ready. ``golden`` and ``drift``: the last self-test and the input's drift, as the engine
    tells them. ``role``: one of ``roles.ROLES``. ``share``: percent
    of the requests without a model of their own that it answers.
    """

    manifest: Manifest
    state: str
    error: str = ""
    computed_by: str = ""
    role: Role = "active"
    share: float = 100.0
    device: str = ""
    processor: str = ""
    golden: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)


def served_models() -> ServedModels:
    """Those of the current app."""
    found: ServedModels = current_app.extensions["predictor"]
    return found


class ServedModels:
    """The manifests of the chosen models, the roles of their versions, and what the engine says. Thread-safe."""

    # Answers that are kept; set only in a process that predicts.
    kept: PredictionCache | None = None

    def __init__(self, settings: Settings, engine: EngineStatus) -> None:
        """Reads the manifests of the chosen models. Raises ManifestError."""
        self.engine: EngineStatus = engine
        self.routing = Routing(
            Path(settings.models_dir), Path(settings.state_dir), settings.models, defaults=settings.models_default
        )
        self._status_lock = threading.Lock()
        self._status: tuple[float, dict[str, Any] | CaskError] | None = None

    @property
    def manifests(self) -> list[Manifest]:
        """The version of each model that answers now."""
        return [route.active for route in self.routing.routes.values()]

    def models(self) -> list[ModelStatus]:
        """Every version that is held or has a role, with its state in the engine; active ones first. Never raises."""
        try:
            rows = {(row["name"], row["version"]): row for row in self.engine_status()["models"]}
        except CaskError as error:
            return [
                ModelStatus(manifest, "unavailable", error.message, "", *_role(route, manifest))
                for route in self.routing.routes.values()
                for manifest in route.manifests.values()
            ]
        return [status for route in self.routing.routes.values() for status in self._statuses(route, rows)]

    def _statuses(self, route: Route, rows: dict[tuple[str, str], dict[str, Any]]) -> list[ModelStatus]:
        held = {version for name, version in rows if name == route.name}
        found = {version: self.routing.manifest(route.name, version) for version in (*route.manifests, *sorted(held))}
        statuses = [
            _status_of(route, manifest, rows.get((route.name, version)))
            for version, manifest in found.items()
            if manifest is not None
        ]
        return sorted(statuses, key=lambda status: ROLES.index(status.role))

    def engine_status(self) -> dict[str, Any]:
        """What the engine says of itself, at most half a second old. Raises EngineAwayError."""
        with self._status_lock:
            if self._status is None or time.monotonic() - self._status[0] > STATUS_AGE_SECONDS:
                found: dict[str, Any] | CaskError
                try:
                    found = self.engine.status()
                except CaskError as error:
                    found = error
                # Its age begins when it is there: all who waited for a slow answer share it.
                self._status = (time.monotonic(), found)
            found = self._status[1]
        if isinstance(found, CaskError):
            raise found
        return found


def _role(route: Route, manifest: Manifest) -> tuple[Role, float]:
    return route.roles.role_of(manifest.version), route.roles.share_of(manifest.version)


def _status_of(route: Route, manifest: Manifest, row: dict[str, Any] | None) -> ModelStatus:
    role, share = _role(route, manifest)
    if row is None and role in ("previous", "withdrawn"):
        return ModelStatus(manifest, "unloaded", "", "", role, share)
    if row is None:
        return ModelStatus(manifest, "unavailable", "The engine does not hold it.", "", role, share)
    if row["digest"] != manifest.digest:
        return ModelStatus(
            manifest, "unavailable", f"The engine holds another digest: {row['digest']}.", "", role, share
        )
    computed_by, device, processor = (row.get(key, "") for key in ("computed_by", "device", "processor"))
    watched = row.get("golden", {}), row.get("drift", {})
    return ModelStatus(manifest, row["state"], row["error"], computed_by, role, share, device, processor, *watched)
