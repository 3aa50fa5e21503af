"""What the running service tells: one request id through all logs, a log file that stays small, alerts of a crash."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests import servers
from tests.bad_input import multipart
from tests.servers import Server
from tests.sinks import HttpSink, http_sink

JPEG = {"Content-Type": "image/jpeg"}
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def alerts() -> Iterator[HttpSink]:
    """Where alerts go."""
    with http_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def collector() -> Iterator[HttpSink]:
    """Where traces go."""
    with http_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def server(alerts: HttpSink, collector: HttpSink) -> Iterator[Server]:
    """A service that tells all that it can; the last test kills its engine."""
    told = {"ALERTS_WEBHOOK_URL": f"{alerts.url}/hook", "TRACES_ENDPOINT": f"{collector.url}/v1/traces"}
    with servers.running("test", LOG_FORMAT="json", LOG_LEVEL="info", JOBS="on", **told) as running:
        yield running


def test_one_id_names_a_request_in_every_log(server: Server) -> None:
    given = server.ask("/v1/classify", b"no picture", {**JPEG, "X-Request-Id": "from-the-caller"})
    refused = server.ask("/v1/classify", b"no picture", JPEG)
    found = refused.headers["X-Request-Id"]
    for name in (found, "from-the-caller"):
        servers.wait_until(lambda name=name: server.log().count(name) >= 2, PATIENCE_SECONDS, f"both lines of {name}")
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]

    for name in (found, "from-the-caller"):
        rows = [row for row in lines if row.get("request_id") == name]
        assert {row["role"] for row in rows} == {"web", "httpd"}
        assert {row["level"] for row in rows} == {"info"}
    assert given.json["request_id"] == "from-the-caller"


def test_log_file_holds_every_line_and_stays_small(sample_path: Path) -> None:
    folder = servers.make_state_dir()
    folder.chmod(0o777)
    path = folder / "cask.log"
    kept = {"LOG_FILE": str(path), "LOG_FILE_MAX_BYTES": "20000", "LOG_FILE_COUNT": "3"}
    with servers.running("test", LOG_LEVEL="info", **kept) as server:
        for number in range(600):
            server.ask(f"/nowhere/{number}")
        # Of the two lines about it, Apache's and the app's, the second may have begun the next file; only then is
        # no file about to be put aside. The older file is read first, so that no line is counted twice.
        newest = (path.with_name("cask.log.1"), path)
        servers.wait_until(
            lambda: sum(each.read_text().count("GET /nowhere/599") for each in newest) == 2,
            PATIENCE_SECONDS,
            "both lines about the last request",
        )
        files = sorted(each.name for each in folder.iterdir())
        sizes = [each.stat().st_size for each in folder.iterdir()]
        # Passed on too, to where Docker or systemd would read it.
        servers.wait_until(lambda: "/nowhere/599 " in server.log(), PATIENCE_SECONDS, "the same line in the log")
        if servers.service_user():
            assert path.owner() == servers.service_user()
    assert files == ["cask.log", "cask.log.1", "cask.log.2"]
    assert max(sizes) <= 65536
    assert "listens on" not in path.read_text()


def test_traces_go_to_the_collector(server: Server, collector: HttpSink, sample_path: Path) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "X-Request-Id": "of-the-trace"}
    # A test before this one may have ended the engine.
    servers.wait_until(lambda: server.ask("/readyz").status == 200, PATIENCE_SECONDS, "the engine")
    assert server.ask("/v1/detect", sample_path.read_bytes(), {**JPEG, **parent}).status == 200

    def spans() -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(post.body) for post in collector.posts]
        scopes = [scope for each in requests for row in each.resource_spans for scope in row.scope_spans]
        return [span for scope in scopes for span in scope.spans if span.trace_id.hex() == trace]

    names = {"POST /v1/detect", "decode", "engine queue", "predict"}
    servers.wait_until(lambda: {span.name for span in spans()} >= names, PATIENCE_SECONDS, "the spans of the request")
    assert {span.name for span in spans()} == names
    request = next(span for span in spans() if span.name == "POST /v1/detect")
    assert {each.key: each.value.string_value for each in request.attributes}["cask.request_id"] == "of-the-trace"


def test_a_jobs_way_is_counted(server: Server, sample_path: Path) -> None:
    body, kind = multipart(*[sample_path.read_bytes()] * 3, task="classify")
    assert server.ask("/v1/jobs", body, {"Content-Type": kind}).status == 202

    def shown() -> str:
        return server.ask("/metrics").body.decode()

    servers.wait_until(
        lambda: 'cask_jobs_total{outcome="succeeded"} 1.0' in shown(), PATIENCE_SECONDS, "the job to succeed"
    )
    found = shown()

    assert 'cask_jobs_total{outcome="queued"} 1.0' in found
    assert "cask_job_images_total 3.0" in found
    assert "cask_job_seconds_count 1.0" in found
    assert "cask_jobs_waiting 0.0" in found
    assert 'cask_processes{role="jobs"} 1.0' in found


def test_a_crash_is_told_by_webhook(server: Server, alerts: HttpSink) -> None:
    victim = server.engine_pid()
    os.kill(victim, signal.SIGKILL)
    servers.wait_until(lambda: server.is_ready() and server.engine_pid() != victim, PATIENCE_SECONDS, "an engine")

    def texts() -> list[str]:
        return [json.loads(post.body)["text"] for post in alerts.posts]

    words = "the previous engine process ended without logging why"
    servers.wait_until(lambda: any(words in text for text in texts()), PATIENCE_SECONDS, "the alert")
    assert all(re.match(r"ERROR on localhost \(test\), ", text) for text in texts())
