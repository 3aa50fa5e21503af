"""Every address of the service, noted at its start for the process of ops, which has the views of few of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from werkzeug.routing import Map, Rule

from app.web.middleware.request_metrics import Routes

# Below Apache's server root.
FILE_NAME = "routes.json"


def rules(url_map: Map) -> list[list[Any]]:
    """The addresses of an app and their methods, as ``configure.py`` notes them."""
    return [[rule.rule, sorted(rule.methods or ())] for rule in url_map.iter_rules()]


def read(state_dir: Path) -> Routes | None:
    """Those of this start; None where none were noted."""
    try:
        noted = json.loads((state_dir / "run" / "httpd" / FILE_NAME).read_text())
    except (OSError, ValueError):
        return None
    return Routes(Map([Rule(rule, methods=methods, endpoint=rule) for rule, methods in noted]))
