"""``python -m app.cli``: the same commands as ``flask``, without Flask."""

from __future__ import annotations

import click

from app import cli


@click.group(commands=[cli.Deferred(name) for name in cli.COMMANDS])
def main() -> None:
    """Operators' commands. `flask` from the project's root has the same ones."""


if __name__ == "__main__":
    main(prog_name="python -m app.cli")
