"""The measured capacity of a target: capacity.json, read by profiles that ask for a share of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE_NAME = "capacity.json"


def path_for(results: Path, env: str) -> Path:
    """Where the capacity of an environment's target stands."""
    return results / f"{env}-{FILE_NAME}"


def known_rps(results: Path, env: str) -> float | None:
    """The measured capacity in requests per second; None where nobody has measured."""
    path = path_for(results, env)
    if not path.exists():
        return None
    return float(json.loads(path.read_text())["capacity_rps"])


def write(results: Path, env: str, table: dict[str, Any]) -> Path:
    """Leave the capacity for later runs; returns the file."""
    path = path_for(results, env)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1))
    return path
