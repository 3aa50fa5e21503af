"""/status: how it goes, for a person. Says OK whenever it can answer; whether predictions work is /readyz's word."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Literal

from flask import Flask, Response, current_app, jsonify
from typing_extensions import TypedDict

from app.config import Settings, in_force
from app.errors import CaskError
from app.host import machine
from app.inference.served_models import served_models
from app.jobs.store import JobStore
from app.supervision import probe
from app.telemetry import metrics, post_mortem
from app.telemetry.metrics import Sums
from app.web import capacity_card, policy
from app.web.middleware.request_metrics import NO_ROUTE
from app.web.openapi.operations import Answer, describe
from app.web.ops import ops, processes
from app.web.ops.health import jobs_row
from app.web.ops.load import Load, refusals
from app.web.ops.plugins import PluginRow, rows
from app.web.ops.version import build

STARTED = time.monotonic()
DAY_SECONDS = 86400


class Status(TypedDict):
    """How it goes."""

    success: Literal["OK"]
    environment: str
    version: str
    revision: str
    uptime_seconds: float
    cores: int
    engine: dict[str, Any]
    processes: list[dict[str, Any]]
    jobs: dict[str, Any]
    plugins: list[PluginRow]
    load: dict[str, Any]
    refused: dict[str, int]
    ends: list[dict[str, Any]]
    memory: dict[str, int]
    disk: dict[str, int]
    certificate: dict[str, Any]
    capacity: dict[str, Any]
    settings: dict[str, Any]


@ops.get("/status")
@describe("Status", Answer("How it goes.", Status))
def status() -> Response:
    """Versions, load of the last minutes, refusals and ended processes since the start, memory, disk, certificate,
    jobs, plugins, and which settings the files say otherwise.
    """
    settings: Settings = current_app.extensions["settings"]
    engine, sums = _engine(), metrics.read(settings.state_dir)
    return jsonify(
        success="OK",
        environment=settings.env,
        version=build()["version"],
        revision=build()["revision"],
        uptime_seconds=round(time.monotonic() - STARTED, 1),
        cores=machine.available_cores(),
        engine=engine,
        processes=_processes(settings.state_dir, engine.get("pid")),
        jobs=_jobs(),
        plugins=rows(settings.state_dir),
        load=_load(settings.state_dir).figures(sums),
        refused=refusals(sums),
        ends=post_mortem.ends(settings.state_dir),
        memory=_memory(sums),
        disk=_disk(settings.state_dir),
        certificate=_certificate(),
        capacity=_capacity(settings),
        settings=in_force.differences(settings),
    )


def _load(state_dir: Path) -> Load:
    """What ops keeps; elsewhere nobody looked before."""
    found: Load | None = current_app.extensions.get("load")
    return found or Load(state_dir, watched(current_app))


def watched(app: Flask) -> set[str]:
    """Addresses that are no load: those of operators and monitors, and Apache's own question."""
    ours = {policy.template(rule.rule) for rule in app.url_map.iter_rules() if rule.endpoint.startswith("ops.")}
    return ours | {probe.PATH, NO_ROUTE}


def _memory(sums: Sums) -> dict[str, int]:
    """What all processes use together, shared pages counted once, and what they may."""
    used = sum(row[0] for row in sums.get(metrics.PROPORTIONAL_BYTES, {}).values())
    return {"used_bytes": int(used), "limit_bytes": machine.available_bytes()}


def _disk(state_dir: Path) -> dict[str, int]:
    try:
        found = shutil.disk_usage(state_dir)
    except OSError:
        return {}
    return {"free_bytes": found.free, "total_bytes": found.total}


def _certificate() -> dict[str, Any]:
    """How long the one that serves is valid yet, and whether the files hold one that cannot. Empty without HTTPS."""
    supervision = current_app.extensions.get("supervision")
    renewals = supervision.certificates if supervision is not None else None
    if renewals is None or renewals.validity is None:
        return {}
    days = int((renewals.validity.ends - time.time()) // DAY_SECONDS)
    return {"days_left": days, "is_refused": renewals.is_refused}


def _capacity(settings: Settings) -> dict[str, Any]:
    """What `make loadtest-search` measured. Empty where it never ran."""
    card = capacity_card.of(settings)
    return {} if card is None else {"requests_per_second": card.rate, "measured_at": card.measured_at, "env": card.env}


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
        status = served_models().engine.status()
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
