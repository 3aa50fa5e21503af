"""The capacity card: how much load this service can take, as the last load test measured it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import current_app, render_template

from app.web.openapi.operations import a_page, describe
from app.web.pages import pages

FILE_NAME = "capacity.json"
# The repository, where `make loadtest-search` leaves what it found.
ROOT = Path(__file__).resolve().parents[3]
# A card of some hundred steps is a few ten kilobytes.
MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Step:
    """One rate that was tried. ``rate`` in requests a second, ``p95_ms`` of the answers."""

    rate: float
    right: float
    p95_ms: float | None
    is_kept: bool


@dataclass(frozen=True)
class Card:
    """What `make loadtest-search` found. ``limits``: milliseconds by percentile, such as p95."""

    rate: float
    failing: float | None
    measured_at: str
    env: str
    limits: Mapping[str, float]
    failed_share: float
    confidence: float
    mix: Mapping[str, float]
    cores: float | None
    processor: str
    models: Mapping[str, str]
    version: str
    command: str
    steps: list[Step]


@pages.get("/capacity")
@describe("The page of the measured capacity", a_page("What the last load test found, or how to make one."))
def capacity() -> str:
    """What the last load test of this service found."""
    settings = current_app.extensions["settings"]
    card = find((settings.state_dir / FILE_NAME, ROOT / "loadtest" / "results" / f"{settings.env}-{FILE_NAME}"))
    return render_template("capacity.html", card=card, env=settings.env)


def find(paths: tuple[Path, ...]) -> Card | None:
    """The card of the first of these files that holds one."""
    return next((card for card in map(read, paths) if card is not None), None)


def read(path: Path) -> Card | None:
    """The card in this file; None where there is none, or something else."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        return _card(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _card(table: Mapping[str, Any]) -> Card:
    prints, promise, server = table["fingerprint"], table["promise"], table.get("server") or {}
    return Card(
        rate=float(table["capacity_rps"]),
        # What could not be measured is not shown as too much.
        failing=None if table.get("not_measured") else table.get("lowest_failing_rps"),
        measured_at=str(table["measured_at"]),
        env=str(table["env"]),
        limits={str(name): float(limit) for name, limit in promise["limits_ms"].items()},
        failed_share=float(promise["max_failed_share"]),
        confidence=float(table["confidence"]),
        mix=_shares(table["mix"]),
        cores=server.get("cores"),
        processor=str(prints.get("generator_cpu", "")),
        models={str(name): str(how) for name, how in (prints.get("computed_by") or {}).items()},
        version=str(prints.get("server_version", "")),
        command=str(table.get("command", "")),
        steps=sorted((_step(row) for row in table.get("steps", [])), key=lambda step: step.rate),
    )


def _shares(mix: Mapping[str, Any]) -> dict[str, float]:
    total = sum(float(weight) for weight in mix.values()) or 1.0
    return {str(name): float(weight) / total for name, weight in mix.items()}


def _step(row: Mapping[str, Any]) -> Step:
    p95 = (row.get("response_ms") or {}).get("p95")
    is_kept = str(row["verdict"]).upper().startswith("PASS")
    return Step(float(row["rate"]), float(row["right_rps"]), None if p95 is None else float(p95), is_kept)
