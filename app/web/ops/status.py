"""/status: how it goes, for a person. Says OK whenever it can answer; whether predictions work is /readyz's word."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from flask import Response, current_app, jsonify
from typing_extensions import TypedDict

from app.errors import CaskError
from app.host import machine
from app.inference.pipeline import predictor
from app.jobs.store import JobStore
from app.web.openapi.operations import Answer, describe
from app.web.ops import ops, processes
from app.web.ops.health import jobs_row
from app.web.ops.plugins import PluginRow, rows
from app.web.ops.version import build

STARTED = time.monotonic()


class Status(TypedDict):
    """How it goes."""

    success: Literal["OK"]
    environment: str
    version: str
    uptime_seconds: float
    cores: int
    engine: dict[str, Any]
    processes: list[dict[str, Any]]
    jobs: dict[str, Any]
    plugins: list[PluginRow]


@ops.get("/status")
@describe("Status", Answer("How it goes.", Status))
def status() -> Response:
    """Environment, version, engine, memory and processor time of every process, and plugins."""
    settings = current_app.extensions["settings"]
    engine = _engine()
    return jsonify(
        success="OK",
        environment=settings.env,
        version=build()["version"],
        uptime_seconds=round(time.monotonic() - STARTED, 1),
        cores=machine.available_cores(),
        engine=engine,
        processes=_processes(settings.state_dir, engine.get("pid")),
        jobs=_jobs(),
        plugins=rows(settings.state_dir),
    )


def _jobs() -> dict[str, Any]:
    """The worker's last sign of life, and how many jobs are in each state; its memory stands with the processes."""
    rows = jobs_row()
    if not rows:
        return {"state": "off"}
    row = {key: value for key, value in rows[0].items() if key != "role"}
    store: JobStore = current_app.extensions["jobs"]
    try:
        return {**row, **(store.counts() if store.exists else {})}
    except CaskError as error:
        return {**row, "error": error.message}


def _engine() -> dict[str, Any]:
    try:
        status = predictor().engine.status()
    except CaskError as error:
        return {"state": "away", "reason": error.message}
    used = {"resident_bytes": machine.resident_bytes(status["pid"]), "cpu_seconds": machine.cpu_seconds(status["pid"])}
    return {"state": "up", **used, **status}


def _processes(state_dir: Path, engine_pid: int | None) -> list[dict[str, Any]]:
    """All but the engine, which is told of apart."""
    ours = processes.alive(state_dir)
    apache = [each for each in processes.of_apache(ours) if each.pid != engine_pid]
    return [
        {
            "role": each.role,
            "pid": each.pid,
            "resident_bytes": each.resident_bytes,
            "cpu_seconds": round(each.cpu_seconds, 2),
        }
        for each in (*ours, *apache)
    ]
