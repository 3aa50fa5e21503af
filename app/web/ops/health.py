"""/livez, /readyz, /startupz. Live asks nothing but itself; ready asks everybody and lists what is missing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NotRequired

from flask import Response, current_app, jsonify
from typing_extensions import TypedDict

from app.errors import CaskError
from app.inference.served_models import served_models
from app.supervision.supervisor import TELL_SECONDS
from app.telemetry import shards
from app.web.middleware import authentication
from app.web.openapi.operations import Answer, describe
from app.web.ops import ops, processes
from app.web.policy import WATCHED_ROUTE

READY_ONCE = "ready_once"
RETRY_AFTER_SECONDS = "2"


class Live(TypedDict):
    """This process answers."""

    live: bool


class Readiness(TypedDict):
    """Whether a prediction would succeed now. What is missing is shown to operators only."""

    ready: bool
    missing: NotRequired[list[str]]
    processes: NotRequired[list[dict[str, Any]]]


class Started(TypedDict):
    """The service has been ready once since it started."""

    started: bool


NOT_READY = Answer("Not now; `missing` says why.", Readiness, headers=("Retry-After",))


@ops.get("/livez")
@describe("Alive", Answer("This process answers.", Live), policy=replace(WATCHED_ROUTE, is_microcached=True))
def live() -> Response:
    """This process answers. A failure here means: restart me."""
    return jsonify(live=True)


@ops.get("/readyz")
@describe("Ready", Answer("A prediction would succeed.", Readiness), policy=WATCHED_ROUTE, answers={503: NOT_READY})
def ready() -> Response:
    """Whether a prediction would succeed now. A failure here means: send callers elsewhere for the moment."""
    report = _report()
    if report["ready"]:
        current_app.extensions[READY_ONCE] = True
    return _answer(report)


@ops.get("/startupz")
@describe(
    "Started", Answer("It has been ready once.", Started | Readiness), policy=WATCHED_ROUTE, answers={503: NOT_READY}
)
def started() -> Response:
    """Whether the service has been ready once since it started."""
    if not current_app.extensions.get(READY_ONCE):
        return ready()
    return jsonify(started=True)


def is_ready() -> bool:
    """Whether a prediction would succeed now."""
    return bool(_report()["ready"])


def _answer(report: dict[str, Any]) -> Response:
    response = jsonify(report if authentication.is_internal_network() else {"ready": report["ready"]})
    if not report["ready"]:
        response.status_code = 503
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _report() -> dict[str, Any]:
    state_dir: Path = current_app.extensions["settings"].state_dir
    engine, missing = _ask_engine()
    missing += _missing_models(engine) + _missing_disk(state_dir)
    others = processes.alive(state_dir)
    if current_app.extensions["role"] == "ops" and not any(other.role == "web" for other in others):
        missing.append("web: no process of the web group is alive; see the error log")
    supervision = current_app.extensions.get("supervision")
    if supervision is not None:
        missing += supervision.troubles()
    rows = [{"role": other.role, "pid": other.pid} for other in others if other.role != "jobs"]
    rows += jobs_row()
    return {"ready": not missing, "missing": missing, "processes": [*_engine_row(engine), *rows]}


def _ask_engine() -> tuple[dict[str, Any], list[str]]:
    try:
        return served_models().engine.status(), []
    except CaskError as error:
        return {}, [f"engine: {error.message}"]


def _missing_models(engine: dict[str, Any]) -> list[str]:
    if not engine:
        return []
    rows = {(row["name"], row["version"]): row for row in engine["models"]}
    missing = [f"model {each.key}: {each.error.message}" for each in served_models().routing.broken]
    for manifest in served_models().manifests:
        row = rows.get((manifest.name, manifest.version))
        if row is None or row["digest"] != manifest.digest:
            missing.append(f"model {manifest.key}: the engine does not hold this digest; restart it")
        elif row["state"] != "ready":
            missing.append(f"model {manifest.key}: {row['state']}{': ' + row['error'] if row['error'] else ''}")
    return missing


def _missing_disk(state_dir: Path) -> list[str]:
    if os.access(state_dir, os.W_OK):
        return []
    return [f"state: {state_dir} cannot be written by this process"]


def jobs_row() -> list[dict[str, Any]]:
    """The jobs' worker and its last sign of life. Never a reason against ready: callers who wait need it not."""
    settings = current_app.extensions["settings"]
    if settings.jobs == "off":
        return []
    found = next((sign for sign in shards.signs(settings.state_dir) if sign.role == "jobs" and sign.beat), None)
    if found is None:
        return [{"role": "jobs", "pid": None, "state": "away"}]
    is_well = max(found.age_seconds, found.stuck_seconds) < TELL_SECONDS
    row = {"role": "jobs", "pid": found.pid, "state": "up" if is_well else "silent"}
    return [{**row, "heartbeat_age_seconds": round(found.age_seconds, 1)}]


def _engine_row(engine: dict[str, Any]) -> list[dict[str, Any]]:
    if not engine:
        return []
    models = [{key: row[key] for key in ("name", "version", "digest", "warm")} for row in engine["models"]]
    return [{"role": "engine", "pid": engine["pid"], "models": models}]
