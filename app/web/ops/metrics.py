"""/metrics: what all processes have counted, and how it stands now, in Prometheus' text form."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, request

from app.errors import CaskError, OutsideError
from app.host import machine
from app.inference.served_models import served_models
from app.jobs.store import JobStore
from app.telemetry import metrics
from app.telemetry.metrics import Metric, Sums
from app.web.middleware import internal_networks
from app.web.openapi.operations import Answer, describe
from app.web.ops import health, ops, plugins, processes
from app.web.ops.version import build
from app.web.policy import WATCHED_ROUTE, Access

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

TEXT = "text/plain"
PATH = "/metrics"
LOOPBACK = ("127.0.0.0/8", "::1/128")

Row = tuple[Metric, dict[str, str], float]


@ops.get(PATH)
@describe(
    "Metrics",
    Answer("Prometheus' text form.", media_type=TEXT),
    policy=replace(WATCHED_ROUTE, access=Access.METRICS),
    errors=(OutsideError,),
)
def show() -> Response:
    """What all processes have counted. For this machine and the networks that the operator allows only."""
    settings = current_app.extensions["settings"]
    _refuse_strangers(settings.metrics_allow)
    # 74 ms, which only the process that is asked pays, and only once.
    from prometheus_client import exposition
    from prometheus_client.registry import CollectorRegistry

    apache_log = current_app.extensions.get("apache_log")
    if apache_log is not None:
        with contextlib.suppress(OSError):
            apache_log.read()
    sums = metrics.read(settings.state_dir)
    for metric, labels, value in look(settings.state_dir):
        sums.setdefault(metric, {}).setdefault(metric.check(labels), [0.0])[0] += value
    registry = CollectorRegistry()
    registry.register(_Families(sums))
    encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(registry), content_type=content_type)


def look(state_dir: Path) -> Iterator[Row]:
    """What is found out now: metric, labels, value."""
    settings = current_app.extensions["settings"]
    yield metrics.BUILD_INFO, {**_of(build(), "version", "revision"), "env": settings.env}, 1
    yield metrics.READY, {}, float(health.is_ready())
    yield metrics.MEMORY_LIMIT, {}, machine.available_bytes()
    with contextlib.suppress(OSError):
        yield metrics.DISK_FREE, {}, shutil.disk_usage(state_dir).free
    try:
        engine = served_models().engine_status()
    except CaskError:
        engine = {}
    yield metrics.ENGINE_UP, {}, float(bool(engine))
    yield from _look_at_engine(engine)
    yield from _look_at_processes(state_dir, engine.get("pid"))
    yield from _look_at_certificate()
    for row in plugins.rows(state_dir):
        yield metrics.PLUGIN_UP, {"plugin": row["name"]}, float(row["state"] == plugins.SERVING)
    store: JobStore = current_app.extensions["jobs"]
    with contextlib.suppress(CaskError):
        counts = store.counts() if settings.jobs == "on" and store.exists else {}
        yield metrics.JOBS_WAITING, {}, counts.get("queued", 0) + counts.get("running", 0)


def _look_at_certificate() -> Iterator[Row]:
    supervision = current_app.extensions.get("supervision")
    renewals = supervision.certificates if supervision is not None else None
    if renewals is None:
        return
    yield metrics.CERTIFICATE_REFUSED, {}, float(renewals.is_refused)
    if renewals.validity is not None:
        yield metrics.CERTIFICATE_BEGINS, {}, renewals.validity.begins
        yield metrics.CERTIFICATE_ENDS, {}, renewals.validity.ends


def _look_at_engine(engine: dict[str, Any]) -> Iterator[Row]:
    figures = {
        "waiting": metrics.ENGINE_WAITING,
        "max_queue_size": metrics.ENGINE_QUEUE_SIZE,
        "workers": metrics.ENGINE_WORKERS,
        "busy_workers": metrics.ENGINE_BUSY_WORKERS,
        "oldest_batch_seconds": metrics.ENGINE_OLDEST_BATCH,
    }
    yield from ((metric, {}, engine[key]) for key, metric in figures.items() if key in engine)
    roles = (
        {(model.manifest.name, model.manifest.version): model.role for model in served_models().models()}
        if engine
        else {}
    )
    for row in engine.get("models", ()):
        version = {"model": row["name"], "version": row["version"]}
        runtime, _, precision = row.get("computed_by", "").partition(" ")
        about = {"runtime": runtime, "precision": precision, "device": row.get("device", "")}
        role = roles.get((row["name"], row["version"]), "")
        yield metrics.MODEL_INFO, {**version, "digest": row["digest"], **about, "role": role}, 1
        yield metrics.MODEL_READY, version, float(row["state"] == "ready")
        yield from _look_at_watch(version, row)


def _look_at_watch(version: dict[str, str], row: dict[str, Any]) -> Iterator[Row]:
    """The last self-test and the drift of one version."""
    if golden := row.get("golden"):
        yield metrics.SELF_TEST_PASSED, version, float(golden["is_passed"])
        yield metrics.SELF_TEST_TIME, version, golden["at"]
    figures = {"mean": metrics.DRIFT_MEAN, "psi": metrics.DRIFT_PSI, "by_chance": metrics.DRIFT_BY_CHANCE}
    drift = row.get("drift", {})
    for name, found in drift.get("figures", {}).items() if drift.get("images") else ():
        known = ((metric, found[key]) for key, metric in figures.items())
        yield from ((metric, {**version, "figure": name}, value) for metric, value in known if value is not None)


def _look_at_processes(state_dir: Path, engine_pid: int | None) -> Iterator[Row]:
    ours = processes.alive(state_dir)
    jobs = [(row["role"], row["pid"]) for row in health.jobs_row() if row["pid"]]
    services = [*jobs, *([("engine", engine_pid)] if engine_pid else [])]
    known = {pid for _, pid in services}
    found = [(each.role, each.pid) for each in (*ours, *processes.of_apache(ours)) if each.pid not in known]
    found += services
    # None alive is a figure too.
    yield from ((metrics.PROCESSES, {"role": role}, 0) for role in ("web", "ops", "engine", "jobs"))
    for role, pid in found:
        if role not in metrics.ROLES:
            continue
        yield metrics.PROCESSES, {"role": role}, 1
        yield metrics.RESIDENT_BYTES, {"role": role}, machine.resident_bytes(pid)


class _Families:
    """The sums as prometheus-client wants them."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def collect(self) -> Iterator[Family]:
        from prometheus_client import core

        kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
        for metric, rows in self._sums.items():
            if metric.kind == "histogram":
                yield _histogram(
                    core.HistogramMetricFamily(metric.name, metric.sentence, labels=[*metric.labels]), metric, rows
                )
                continue
            family = kinds[metric.kind](metric.name, metric.sentence, labels=[*metric.labels])
            for labels, values in sorted(rows.items()):
                family.add_metric(labels, values[0])
            yield family


def _histogram(family: Any, metric: Metric, rows: dict[tuple[str, ...], list[float]]) -> Family:
    bounds = [*(f"{bound:g}" for bound in metric.buckets), "+Inf"]
    for labels, values in sorted(rows.items()):
        counted, buckets = 0.0, []
        for bound, count in zip(bounds, values, strict=False):
            counted += count
            buckets.append((bound, counted))
        family.add_metric(labels, buckets, values[-1])
    return family


def _refuse_strangers(allowed: tuple[str, ...]) -> None:
    """Apache has the same rule; this one is for other servers, and for callers behind a trusted proxy."""
    if not internal_networks.is_from((*LOOPBACK, *allowed)):
        raise OutsideError(
            "Metrics are shown to this machine and to the networks in METRICS_ALLOW.",
            hint="Ask from there, not through a proxy, or add the network of your Prometheus to METRICS_ALLOW.",
        )


def _of(table: dict[str, str], *names: str) -> dict[str, str]:
    return {name: re.sub(r'["\\\n]', "", table[name]) for name in names}
