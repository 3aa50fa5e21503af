"""``python -m app.web.openapi json|postman``: write the description to a file, for programs that want one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app import config
from app.config import ROOT
from app.factory import create_app
from app.web.openapi import document, postman

FOLDER = ROOT / "build"


def main(arguments: list[str]) -> int:
    """Write build/openapi.json or build/cask.postman_collection.json and say so. Returns 2 for other words."""
    settings = config.load()
    app = create_app(settings.model_copy(update={"engine_mode": "service"}))
    base_url = _base_url(settings)
    made = {
        "json": ("openapi.json", lambda: document.build(app)),
        "postman": (
            "cask.postman_collection.json",
            lambda: postman.collection(document.build(app), base_url),
        ),
    }
    if len(arguments) != 1 or arguments[0] not in made:
        print(f"Usage: python -m app.web.openapi {'|'.join(made)}", file=sys.stderr)
        return 2
    name, make = made[arguments[0]]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / name
    path.write_text(json.dumps(make(), indent=2) + "\n")
    print(f"{Path(path).relative_to(ROOT)} is written. Next: import it where you want to send requests from.")
    return 0


def _base_url(settings: config.Settings) -> str:
    """Where callers reach the service of these settings."""
    scheme, port = ("https", settings.https_port) if settings.tls_enabled else ("http", settings.port)
    return f"{scheme}://{config.in_url(settings.server_name)}:{port}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
