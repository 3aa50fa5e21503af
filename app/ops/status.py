"""/status: how it goes, for a person. Says OK whenever it can answer; whether predictions work is /readyz's word."""

from __future__ import annotations

import time
from typing import Any

from flask import Response, current_app, jsonify

from app import machine
from app.errors import CaskError
from app.ops import ops, processes
from app.ops.version import build
from app.predictions import predictor

STARTED = time.time()


@ops.get("/status")
def status() -> Response:
    """Environment, version, engine, memory of every process."""
    settings = current_app.extensions["settings"]
    return jsonify(
        success="OK",
        environment=settings.env,
        version=build()["version"],
        uptime_seconds=round(time.time() - STARTED, 1),
        engine=_engine(),
        processes=[
            {"role": each.role, "pid": each.pid, "resident_bytes": each.resident_bytes}
            for each in processes.alive(settings.state_dir)
        ],
    )


def _engine() -> dict[str, Any]:
    try:
        status = predictor().engine.status()
    except CaskError as error:
        return {"state": "away", "reason": error.message}
    return {"state": "up", "resident_bytes": machine.resident_bytes(status["pid"]), **status}
