"""``flask status``: what the running service says of itself, with a token of this command's own."""

from __future__ import annotations

import time
from typing import Any

import click

from app import config
from app.cli import completion, known_settings, service, status_screen, terminal
from app.config import Settings

WATCH_SECONDS = 2.0


@click.command(cls=terminal.Command)
@click.option("--env", default="", shell_complete=completion.environments, help="The environment; else that of ENV.")
@click.option("--watch", "is_watching", is_flag=True, help="Print it anew every two seconds, until Ctrl-C.")
@click.option("--differing", multiple=True, hidden=True, help="A file of the container's host that the release lacks.")
@terminal.json_option
@click.pass_context
def command(context: click.Context, env: str, is_watching: bool, differing: tuple[str, ...], is_json: bool) -> None:
    """Show the service on this machine on one screen; 1 when it is not ready.

    Needs no token of you, as long as you may write the state. --json prints /readyz and /status.
    """
    settings = known_settings.read(*known_settings.ASKED, place=config.Sources().of(env))
    with service.own_token(settings, ("predict", "admin")) as token:
        while True:
            is_well, said = _ask(settings, token)
            said |= {"differing_files": list(differing)} if differing else {}
            if is_watching:
                click.clear()
            if is_json:
                terminal.print_json(said)
            elif "success" not in said["status"]:
                raise terminal.Failure(service.Reply(0, said["status"]).problem, next_step="Ask as who owns STATE_DIR.")
            else:
                status_screen.show(settings, said)
            if not is_watching:
                break
            time.sleep(WATCH_SECONDS)
    if not is_well:
        context.exit(terminal.REFUSED)


def _ask(settings: Settings, token: str) -> tuple[bool, dict[str, Any]]:
    asked = service.local(settings, token)
    ready, status = (asked.ask(path, patience_seconds=0) for path in ("/readyz", "/status"))
    return ready.status == status.status == 200, {"readyz": ready.document, "status": status.document}
