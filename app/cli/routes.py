"""``flask routes``: every address of the service, with what stands beside its view. Starts no engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli import terminal

if TYPE_CHECKING:
    from flask import Flask

HEADS = ("Address", "Methods", "Who may ask", "What it is")
FILES = "Files"


@click.command(cls=terminal.Command)
@terminal.json_option
@click.option("--path", default="", metavar="TEXT", help="Only addresses that hold this text.")
def command(is_json: bool, path: str) -> None:
    """Print every address of the service.

    With methods, the scope that a token needs where tokens are asked for, and meaning. No engine is started.
    """
    rows = [row for row in _rows(_application()) if path in row["path"]]
    if is_json:
        terminal.print_json(rows)
        return
    if not rows:
        raise terminal.Failure(f"No address holds {path!r}.", next_step="flask routes prints all of them.")
    keys = ("tag", "path", "methods", "scope", "summary")
    cells = [tuple(" ".join(row[key]) if key == "methods" else row[key] for key in keys) for row in rows]
    terminal.print_table(HEADS, cells, has_sections=True)


def _application() -> Flask:
    """The real application, whose engine nobody will ask, with a state folder that is gone at once."""
    from app import config
    from app.engine.client import EngineClient
    from app.errors import SettingsError
    from app.factory import create_app

    try:
        settings = config.resolve()
    except SettingsError as error:
        terminal.print_note(f"The settings are wrong, so these are the addresses of dev: {error.message}")
        settings = config.describe("dev")
    with tempfile.TemporaryDirectory(prefix="cask-") as folder:
        changes = {"state_dir": Path(folder), "log_level": "error", "engine_mode": "service"}
        return create_app(settings.model_copy(update=changes), EngineClient(settings.engine_socket))


def _rows(app: Flask) -> list[dict[str, Any]]:
    """One for each address and view, in the order of the description's groups."""
    from app.openapi import operations
    from app.openapi.document import TAGS

    found = []
    for rule in app.url_map.iter_rules():
        operation = operations.of(app.view_functions[rule.endpoint])
        found.append(
            {
                "path": rule.rule,
                "methods": sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}),
                "tag": operation.tag if operation else FILES,
                "scope": _scope(rule.endpoint),
                "summary": operation.summary if operation else "Files of the pages, as they lie on disk",
                "endpoint": rule.endpoint,
            }
        )
    order = {tag: i for i, tag in enumerate((*TAGS, FILES))}
    return sorted(found, key=lambda row: (order.get(row["tag"], len(order)), row["path"], row["methods"]))


def _scope(endpoint: str) -> str:
    """What a caller needs where AUTHENTICATION is required."""
    from app.guards import authentication

    if endpoint in authentication.PUBLIC:
        return "anybody"
    if endpoint in authentication.LOCKED:
        return "METRICS_ALLOW"
    if endpoint in authentication.ADMIN:
        return "admin"
    return "any token" if endpoint in authentication.ANY_SCOPE else "predict"
