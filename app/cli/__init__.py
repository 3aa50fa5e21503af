"""Operators' commands: ``flask --help``. The group itself imports little; each command brings what it needs.

``.flaskenv`` names this package, so ``flask`` finds the commands from the project's root; ``python -m app.cli`` is the
same without Flask. The application made here has commands and no routes: it opens no engine and works where the
settings do not.
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
    "predict": "predict",
    "routes": "routes",
    "token": "token",
}
# Those that the group may keep: Flask's own, and ours of a name that Flask has too (requirements/environment).
KEPT = {"routes", "run", "shell"}


def create_app() -> Flask:
    """An application with the operators' commands, for ``flask``."""
    from flask import Flask

    app = Flask("cask", static_folder=None)
    for name in COMMANDS:
        app.cli.add_command(load(name), name)
    _clear(click.get_current_context(silent=True))
    return app


def load(name: str) -> click.Command:
    """The command of that name in COMMANDS."""
    command: click.Command = importlib.import_module(f"{__name__}.{COMMANDS[name]}").command
    return command


def _clear(context: click.Context | None) -> None:
    """Leave nothing in the group that would mislead, and end what would.

    ``flask run`` is already under way when we hear of it.
    """
    if context is None:
        return
    root = context.find_root().command
    if isinstance(root, click.Group):
        # What extensions bring differs with what happens to be installed.
        for name in set(root.commands) - KEPT:
            del root.commands[name]
    if context.command is not root and context.command.name == "run":
        from app.cli.terminal import Failure

        raise Failure("flask run would serve without an engine.", next_step="make dev, or with Apache: make serve")
