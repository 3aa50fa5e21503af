"""The web tier, put together in reading order. The only place that knows all of its parts."""

from __future__ import annotations

import atexit
import subprocess
import sys

from flask import Flask
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from app import config
from app.cache import predictions
from app.config import ROOT, Settings
from app.engine.client import EngineClient
from app.ensembles.ensemble import Ensemble
from app.inference.pipeline import Engine, Predictor
from app.jobs import stores
from app.plugins import mounting
from app.web import middleware, policy, serving
from app.web.api import api, fast_path, light_path
from app.web.api.inference import inference
from app.web.api.legacy import legacy
from app.web.api.rpc import rpc
from app.web.middleware import request_metrics
from app.web.middleware.request_context import RequestContext
from app.web.openapi.readers import openapi
from app.web.ops import ops
from app.web.pages import pages
from app.web.whole_answers import WholeAnswers


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> Flask:
    """The WSGI application. Reads the settings and talks to the engine's socket unless told otherwise.

    Raises SettingsError, ManifestError and PluginError: a service that is set up wrongly must not start.
    """
    settings = settings or config.load()
    app = _app()
    role = serving.begin(app, settings)
    app.extensions["jobs"] = stores.of(settings)
    kept = predictions.init_app(app, settings)
    predictor = Predictor(settings, engine or _engine(settings), kept, RequestContext())
    app.extensions["predictor"] = predictor
    app.extensions["ensemble"] = Ensemble.of(settings)
    if app.extensions["is_under_apache"]:
        app.wsgi_app = WholeAnswers(app.wsgi_app)  # type: ignore[method-assign]
    light_path.init_app(app, settings, lambda: straight is not None and straight.is_open)
    straight = fast_path.init_app(app, settings)
    middleware.init_app(app, settings, predictor.decoder.budget)
    add_routes(app)
    if role == "web":
        mounting.mount(app, settings)
        mounting.note(app, settings.state_dir)
    if straight is not None:
        # Those of plugins hold for their own addresses.
        straight.note_hooks()
    request_metrics.init_app(app, lambda: serving.start_telemetry(settings, role), settings.silence_seconds)
    return app


def routes_only() -> Flask:
    """An application that has all routes and answers none, to list them and their policies."""
    app = _app()
    add_routes(app)
    return app


def add_routes(app: Flask) -> None:
    """Every address of the service."""
    policy.put(app.view_functions["static"], policy.FILE_ROUTE)
    for blueprint in (api, legacy, rpc, inference, openapi, pages, ops):
        app.register_blueprint(blueprint)


def _app() -> Flask:
    return Flask("app", static_folder=str(ROOT / "app" / "static"), static_url_path="/static")


def _engine(settings: Settings) -> EngineClient:
    """The door to the engine; also starts one where ENGINE_MODE says so. Apache always runs its own."""
    client = EngineClient(settings.engine_socket)
    # Several processes of another server may share one engine: later ones find it running.
    if serving.mod_wsgi() or client.has_listener():
        return client
    if settings.engine_mode == "child" and not _is_reloader_parent():
        _start_child("app.engine")
        if settings.jobs == "on":
            _start_child("app.jobs")
    elif settings.engine_mode == "in_process":
        _start_here(settings)
    return client


def _is_reloader_parent() -> bool:
    """Whether this is the first process of ``flask run --debug``, which only starts the one that serves."""
    return get_debug_flag() and "run" in sys.argv and not is_running_from_reloader()


def _start_child(module: str) -> None:
    child = subprocess.Popen([sys.executable, "-m", module, "--with-parent"], cwd=ROOT)
    atexit.register(child.terminate)


def _start_here(settings: Settings) -> None:
    # Only this mode brings torch into the web process.
    from app.engine import service

    server = service.build(settings)
    server.start()
    atexit.register(server.stop, 0)
