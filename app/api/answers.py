"""Outcomes as JSON, with what every answer carries: model, request id, timings."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify

from app.guards import request_ids
from app.manifests import Manifest
from app.predictions import Outcome
from app.results import to_dict

# How many digits of a score and of a pixel are worth sending.
SCORE_DIGITS = 5
PIXEL_DIGITS = 2


def answer(outcome: Outcome, key: str) -> Response:
    """The response for an outcome; ``key`` is predictions or detections."""
    response = jsonify(
        model=model_identity(outcome.manifest),
        results=[
            {"width": result.width, "height": result.height, key: [_rounded(to_dict(row)) for row in result.answer]}
            for result in outcome.results
        ],
        request_id=request_ids.current(),
    )
    response.headers["Server-Timing"] = server_timing(outcome.timings)
    return response


def model_identity(manifest: Manifest) -> dict[str, str]:
    """Which model answered: name, version and digest."""
    return {"name": manifest.name, "version": manifest.version, "digest": manifest.digest}


def server_timing(timings: dict[str, float]) -> str:
    """Milliseconds as the Server-Timing header writes them (W3C Server Timing)."""
    return ", ".join(f"{name};dur={milliseconds:.2f}" for name, milliseconds in timings.items())


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    row["score"] = round(row["score"], SCORE_DIGITS)
    if "box" in row:
        row["box"] = {side: round(value, PIXEL_DIGITS) for side, value in row["box"].items()}
    return row
