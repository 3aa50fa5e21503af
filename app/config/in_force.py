"""Which settings the files say otherwise than what runs: the question after each edit that nobody reloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app import config
from app.config import Settings
from app.errors import SettingsError

# Below Apache's server root: what Apache and the engine were started with.
FILE_NAME = "started-with.json"


def note(settings: Settings, server_root: Path) -> None:
    """Keep the settings of this start, without secrets. Raises OSError."""
    (server_root / FILE_NAME).write_text(json.dumps(_open_values(settings)))


def differences(settings: Settings) -> dict[str, Any]:
    """``changed``: names that the files say otherwise than this process, which `make reload` mends; ``restart``: those
    that a reload has brought here, but not to the engine and Apache; ``error``: why the files cannot be read.
    """
    try:
        now = config.resolve()
    except SettingsError as error:
        return {"changed": [], "restart": [], "error": error.message}
    changed = [one.name for field, one in config.DECLARATIONS.items() if now.text(field) != settings.text(field)]
    try:
        start = json.loads((settings.state_dir / "run" / "httpd" / FILE_NAME).read_text())
    except (OSError, ValueError):
        start = {}
    here = _open_values(settings)
    restart = [name for name, value in start.items() if name in here and value != here[name]]
    return {"changed": changed, "restart": restart, "error": ""}


def _open_values(settings: Settings) -> dict[str, str]:
    return {one.name: settings.text(field) for field, one in config.DECLARATIONS.items() if not one.is_secret}
