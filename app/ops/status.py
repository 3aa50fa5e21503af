"""/status: how it goes, for a person. Says OK whenever it can answer; whether predictions work is /readyz's word."""

from __future__ import annotations

import time
from typing import Any, Literal

from flask import Response, current_app, jsonify
from typing_extensions import TypedDict

from app import machine
from app.errors import CaskError
from app.openapi.operations import Answer, describe
from app.ops import ops, processes
from app.ops.version import build
from app.predictions import predictor

STARTED = time.time()


class Status(TypedDict):
    """How it goes."""

    success: Literal["OK"]
    environment: str
    version: str
    uptime_seconds: float
    engine: dict[str, Any]
    processes: list[dict[str, Any]]


@ops.get("/status")
@describe(tag="Health", summary="Status", answers={200: Answer(description="How it goes.", schema=Status)})
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
