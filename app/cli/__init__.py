"""Operators' commands: ``flask --help``. The group itself imports little; each command brings what it needs.

``.flaskenv`` names this package, so ``flask`` finds the commands from the project's root; ``python -m app.cli`` is the
same without Flask. For them the application made here has commands and no routes: it opens no engine and works where
the settings do not. ``flask run`` and ``flask shell`` get the real one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flask import Flask

# Command → what `flask --help` says of it. Each is the object `command` of the module of its name.
COMMANDS: dict[str, str] = {
    "backup": "Back up what only this machine has, while it serves; check and restore a backup.",
    "config": "Show, compare, check and document the settings.",
    "doctor": "Say what is wrong, and what to do about it.",
    "jobs": "See, cancel, try again and clear away background jobs.",
    "model": "Models: see, add, build, and change which one answers.",
    "plugin": "Your own Flask code: see, begin, check, test.",
    "predict": "Send images to the running service and print what it says.",
    "routes": "Print every address of the service.",
    "status": "Show the service on this machine on one screen; 1 when it is not ready.",
    "support-bundle": "Write an archive for the person who helps you, without secrets.",
    "token": "API tokens: who may call the service, and for what.",
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
        app.cli.add_command(Deferred(name))
    _clear(context)
    return app


class Deferred(click.Command):
    """A command in the list of all; its module is read when it is run, explained or completed."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=COMMANDS[name])

    def make_context(self, *given: Any, **more: Any) -> click.Context:
        """That of the command itself."""
        return load(str(self.name)).make_context(*given, **more)


def load(name: str) -> click.Command:
    """The command of that name in COMMANDS."""
    command: click.Command = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").command
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
                next_step=f"make serve ENV={settings.env}, or gunicorn: docs/administration.md, Other WSGI servers",
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
