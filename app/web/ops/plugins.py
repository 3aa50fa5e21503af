"""How the plugins are, as the web processes noted when they mounted them: /status and a metric say it."""

from __future__ import annotations

import json
from pathlib import Path

from typing_extensions import TypedDict

from app.web.ops import applications

# Below STATE_DIR. Health shall not depend on other people's code, so the process that answers it mounts none.
FILE = Path("run") / "plugins.json"
SERVING = "serving"


class PluginRow(TypedDict):
    """One plugin. ``state``: serving or left out; of a whole application also loading or failed. ``reason``: why."""

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
    return [_as_now(state_dir, row) for row in found]


def _as_now(state_dir: Path, row: PluginRow) -> PluginRow:
    """An application is imported by processes of its own, after the others mounted nothing of it."""
    if row["state"] != SERVING or not (state_dir / applications.FOLDER / row["name"]).is_dir():
        return row
    state, reason = applications.state(state_dir, row["name"])
    return {**row, "state": state, "reason": reason}
