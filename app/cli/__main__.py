"""``python -m app.cli``: the same commands as ``flask``, without Flask; only the one that is asked for is read."""

from __future__ import annotations

import click

from app import cli


class Commands(click.Group):
    """Every command of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(cli.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them; None where there is none of that name."""
        return cli.load(cmd_name) if cmd_name in cli.COMMANDS else None


@click.command(cls=Commands)
def main() -> None:
    """Operators' commands. `flask` from the project's root has the same ones."""


if __name__ == "__main__":
    main(prog_name="python -m app.cli")
