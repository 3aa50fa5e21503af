"""Every address of the service, noted at its start for the process of ops, which has the views of few of them."""

from __future__ import annotations

import json
from pathlib import Path

from werkzeug.routing import Map, Rule

from app.web.middleware.request_metrics import Routes

# Below Apache's server root.
FILE_NAME = "routes.json"


def note(url_map: Map, server_root: Path) -> None:
    """Keep the addresses of this app and their methods. Raises OSError."""
    rules = [[rule.rule, sorted(rule.methods or ())] for rule in url_map.iter_rules()]
    (server_root / FILE_NAME).write_text(json.dumps(rules))


def read(state_dir: Path) -> Routes | None:
    """Those of this start; None where none were noted."""
    try:
        rules = json.loads((state_dir / "run" / "httpd" / FILE_NAME).read_text())
    except (OSError, ValueError):
        return None
    return Routes(Map([Rule(rule, methods=methods, endpoint=rule) for rule, methods in rules]))
