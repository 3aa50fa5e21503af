"""How the plugins are, as the web processes noted when they mounted them: /status and a metric say it."""

from __future__ import annotations

import json
from pathlib import Path

from typing_extensions import TypedDict

# Below STATE_DIR. Health shall not depend on other people's code, so the process that answers it mounts none.
FILE = Path("run") / "plugins.json"
SERVING = "serving"


class PluginRow(TypedDict):
    """One plugin. ``state``: serving or left out; ``reason``: why it is left out."""

    name: str
    version: str
    state: str
    reason: str


def rows(state_dir: Path) -> list[PluginRow]:
    """All plugins that were to be served; none where nobody noted any. Never raises."""
    try:
        found: list[PluginRow] = json.loads((state_dir / FILE).read_bytes())
    except (OSError, ValueError):
        return []
    return found
