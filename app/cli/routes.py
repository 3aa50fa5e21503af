"""``flask routes``: every address of the service, with what stands beside its view. Starts no engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from flask import Flask
from werkzeug.routing import Rule

from app import config
from app.cli import terminal
from app.config import Settings
from app.engine.client import EngineClient
from app.errors import SettingsError
from app.factory import create_app
from app.web import policy
from app.web.openapi import document, operations
from app.web.policy import RoutePolicy

HEADS = ("Address", "Methods", "Who may ask", "What it is")
FILES = "Files"


@click.command(cls=terminal.Command)
@terminal.json_option
@click.option("--policy", "is_policy", is_flag=True, help="Print the rules that apply to each address.")
@click.option("--path", default="", metavar="TEXT", help="Only addresses that hold this text.")
def command(is_json: bool, is_policy: bool, path: str) -> None:
    """Print every address of the service.

    With methods, the scope that a token needs where tokens are asked for, and meaning; with --policy the rules that
    apply to it instead of the meaning. No engine is started.
    """
    rows = [row for row in _rows(_application()) if path in row["path"]]
    if is_json:
        terminal.print_json(rows)
        return
    if not rows:
        raise terminal.Failure(f"No address holds {path!r}.", next_step="flask routes prints all of them.")
    keys = ("tag", "path", "methods", "scope", "rules" if is_policy else "summary")
    cells = [tuple(row[key] if isinstance(row[key], str) else " ".join(row[key]) for key in keys) for row in rows]
    terminal.print_table((*HEADS[:3], "Rules") if is_policy else HEADS, cells, has_sections=True)


def _application() -> Flask:
    try:
        settings = config.resolve()
    except SettingsError as error:
        terminal.print_note(f"The settings are wrong, so these are the addresses of dev: {error.message}")
        settings = config.describe("dev")
    return application(settings)


def application(settings: Settings, **changed: object) -> Flask:
    """The real application, for a look at its routes: no engine is started, and its state folder is deleted at once."""
    with tempfile.TemporaryDirectory(prefix="cask-") as folder:
        changes = {"state_dir": Path(folder), "log_level": "error", "engine_mode": "service", **changed}
        return create_app(settings.model_copy(update=changes), EngineClient(settings.engine_socket))


def _rows(app: Flask) -> list[dict[str, Any]]:
    """One for each address and view, in the order of the description's groups."""
    found = [_row(app, rule, here) for rule, here in policy.routes(app)]
    return sorted(found, key=lambda row: (row["tag"] == FILES, document.order(row["tag"]), row["path"], row["methods"]))


def _row(app: Flask, rule: Rule, here: RoutePolicy) -> dict[str, Any]:
    operation = operations.of(app, rule)
    is_file = here == policy.FILE_ROUTE
    return {
        "path": rule.rule,
        "methods": sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}),
        "tag": FILES if is_file else operation.tag,
        "scope": here.access.value,
        "summary": "Files of the pages, as they lie on disk" if is_file else operation.summary,
        "endpoint": rule.endpoint,
        "rules": here.rules(),
    }
