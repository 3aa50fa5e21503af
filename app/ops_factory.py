"""The application of the daemon group ops: the views of operators alone, without Pillow, numpy, pages and the API.

Half of what all of them cost at each start, and a third of this process's memory.
"""

from __future__ import annotations

from flask import Flask

from app import config
from app.config import Settings, plugin_settings
from app.engine.client import EngineClient
from app.errors import PluginError
from app.host import sizing
from app.inference.memory_budget import Budget
from app.inference.served_models import ServedModels
from app.jobs import stores
from app.web import middleware, serving
from app.web.middleware import request_metrics
from app.web.ops import known_routes, ops


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application. Reads the settings unless told otherwise. Raises SettingsError and ManifestError."""
    settings = settings or config.load()
    routes = known_routes.read(settings.state_dir)
    if _has_plugins(settings) or routes is None:
        # Its guard answers for whole applications of others, also with pages; and old code noted no routes.
        from app import factory

        return factory.create_app(settings)
    app = Flask("app", static_folder=None)
    role = serving.begin(app, settings)
    app.extensions["jobs"] = stores.of(settings)
    app.extensions["predictor"] = ServedModels(settings, EngineClient(settings.engine_socket))
    middleware.init_app(app, settings, _budget(settings))
    app.register_blueprint(ops)
    request_metrics.init_app(app, lambda: serving.start_telemetry(settings, role))
    # Apache's own answers are counted here, whatever they were asked for.
    app.extensions["routes"] = routes
    return app


def _has_plugins(settings: Settings) -> bool:
    try:
        return bool(plugin_settings.folders(settings))
    except PluginError:
        return True


def _budget(settings: Settings) -> Budget:
    return Budget.of(sizing.choose(settings).request_memory.value, settings.state_dir)
