"""``flask status``: what the running service says of itself, with a token of this command's own."""

from __future__ import annotations

import click

from app import config
from app.cli import completion, service, terminal


@click.command(cls=terminal.Command)
@click.option("--env", default="", shell_complete=completion.environments, help="The environment; else that of ENV.")
@click.pass_context
def command(context: click.Context, env: str) -> None:
    """Print /readyz and /status of the service on this machine as JSON; 1 when it is not ready.

    Needs no token of you, as long as you may write the state.
    """
    settings = config.resolve(*config.Sources().of(env))
    with service.own_token(settings, ("predict", "admin")) as token:
        asked = service.local(settings, token)
        ready, status = (asked.ask(path, patience_seconds=0) for path in ("/readyz", "/status"))
    terminal.print_json({"readyz": ready.document, "status": status.document})
    if ready.status != 200 or status.status != 200:
        context.exit(terminal.REFUSED)
