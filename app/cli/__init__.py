"""Operators' commands: ``flask --help``. The group itself imports little; each command brings what it needs.

``.flaskenv`` names this package, so ``flask`` finds the commands from the project's root. The application made here has
commands and no routes: it opens no engine and works where the settings do not.
"""

from __future__ import annotations

import importlib

import click
from flask import Flask

# Command → module below app.cli that holds it, as an object `command`; imported when the command is asked for.
COMMANDS: dict[str, str] = {}


def create_app() -> Flask:
    """An application with the operators' commands, for ``flask``."""
    app = Flask("cask", static_folder=None)
    for name in COMMANDS:
        app.cli.add_command(_load(name), name)
    return app


def _load(name: str) -> click.Command:
    command: click.Command = importlib.import_module(f"{__name__}.{COMMANDS[name]}").command
    return command
