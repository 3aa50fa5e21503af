"""``flask routes`` is Cask's where ``flask`` is called in Cask's folder, and Flask's own everywhere else.

Flask knows a command of that name itself and would not ask the application for ours, nor know its options; only a
package that is installed beside it comes first. All other commands are found through ``.flaskenv``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flask.cli import routes_command

if TYPE_CHECKING:
    import click

OURS = Path("app", "cli", "routes.py")


def _chosen() -> click.Command:
    if not OURS.is_file():
        return routes_command
    # As Flask does, once it looks for the application.
    sys.path.insert(0, str(Path.cwd()))
    from app.cli import load

    return load("routes")


routes = _chosen()
