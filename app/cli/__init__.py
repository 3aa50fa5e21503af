"""Operators' commands: ``flask --help``. The group itself imports little; each command brings what it needs.

``.flaskenv`` names this package, so ``flask`` finds the commands from the project's root; ``python -m app.cli`` is the
same without Flask. For them the application made here has commands and no routes: it opens no engine and works where
the settings do not. ``flask run`` and ``flask shell`` get the real one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flask import Flask

# Command → module below app.cli that holds it, as an object `command`. All of them are imported by `flask --help`, so a
# module imports click and app.cli.terminal at its top, and everything else inside the functions that need it.
COMMANDS: dict[str, str] = {
    "config": "config",
    "doctor": "doctor",
    "jobs": "jobs",
    "model": "model",
    "plugin": "plugin",
    "predict": "predict",
    "routes": "routes",
    "status": "status",
    "token": "token",
}
# Those that the group may keep: Flask's own, and ours of a name that Flask has too (requirements/environment).
SERVING = {"run", "shell"}
KEPT = {"routes"} | SERVING


def create_app() -> Flask:
    """For ``flask run`` and ``flask shell`` the service's own application; else one with the operators' commands."""
    context = click.get_current_context(silent=True)
    if context is not None and context.command.name in SERVING and isinstance(context.obj, _script_info()):
        return _service(context)
    from flask import Flask

    app = Flask("cask", static_folder=None)
    for name in COMMANDS:
        app.cli.add_command(load(name), name)
    _clear(context)
    return app


def load(name: str) -> click.Command:
    """The command of that name in COMMANDS."""
    command: click.Command = importlib.import_module(f"{__name__}.{COMMANDS[name]}").command
    return command


def _script_info() -> type:
    from flask.cli import ScriptInfo

    return ScriptInfo


def _service(context: click.Context) -> Flask:
    """The application as the settings say. Ends the command where it may not serve so."""
    from app import config
    from app.cli.terminal import WRONG_SETTINGS, Failure
    from app.errors import CaskError
    from app.factory import create_app

    try:
        settings = config.load()
        if context.command.name == "run" and settings.is_deployed:
            raise Failure(
                f"flask run is Flask's development server, and ENV is {settings.env!r}.",
                next_step=f"make serve ENV={settings.env}, or gunicorn: docs/operations.md, Other WSGI servers",
            )
        if context.command.name == "shell":
            # Nobody waits for predictions here; the running service's engine is asked, where there is one.
            settings = settings.model_copy(update={"engine_mode": "service"})
            # Else Flask would set it by FLASK_DEBUG alone.
            context.obj.set_debug_flag = False
        app = create_app(settings)
    except CaskError as error:
        raise Failure(error.message, next_step=error.hint, status=WRONG_SETTINGS) from None
    if context.command.name == "shell":
        app.debug = settings.debug
    return app


def _clear(context: click.Context | None) -> None:
    """Leave nothing in the group that would mislead: what extensions bring differs with what is installed."""
    root = context.find_root().command if context is not None else None
    if isinstance(root, click.Group):
        for name in set(root.commands) - KEPT:
            del root.commands[name]
