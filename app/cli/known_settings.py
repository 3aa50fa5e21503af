"""Settings for commands that an operator needs at night, also where a line of env/local.env is wrong."""

from __future__ import annotations

import click

from app import config
from app.config import Settings, Sources

# Where a service keeps what it must not lose, and where it is asked.
STATE = ("state_dir",)
TOKENS = (*STATE, "state_store", "redis_url")
ENGINE = (*STATE, "engine_socket")
STORED = (*STATE, "models_dir", "plugins_dir")
ASKED = (*TOKENS, "listen_host", "port", "https_port")


def read(*needed: str, place: Sources | None = None) -> Settings:
    """The settings as far as they can be read; what is wrong is said beside the command's output.

    Raises SettingsError where one of ``needed``, the fields that the command goes by, may be wrong.
    """
    settings, problems = config.resolve_known(place or Sources(), *needed)
    for problem in problems:
        click.echo(f"Note: {problem} This command goes on without it.", err=True)
    return settings
