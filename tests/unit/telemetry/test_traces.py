"""Traces as a collector takes them: one request, its parts inside, and whose trace it belongs to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.config import SecretStr
from app.telemetry import metrics, traces
from app.telemetry.shards import MetricsShard
from tests import fakes
from tests.fakes import FakeEngine, picture
from tests.servers import ROOT
from tests.sinks import HttpSink, http_sink

JPEG = {"Content-Type": "image/jpeg"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    """A collector."""
    with http_sink() as found:
        yield found


@pytest.fixture
def app(tmp_path: Path, sink: HttpSink) -> Iterator[Flask]:
    """The real app, all of whose requests are traced."""
    endpoint = SecretStr(f"{sink.url}/v1/traces")
    yield fakes.make_app(tmp_path, FakeEngine(), traces_endpoint=endpoint, traces_share=1.0)
    traces._tracer = None
    metrics._use(MetricsShard.in_memory())
    metrics._place = None


def spans(sink: HttpSink) -> list[tuple[dict[str, Any], Any]]:
    """Every span that the collector has, each with what is known of its service."""
    assert traces._tracer.span_processor.force_flush(int(fakes.PATIENCE_SECONDS * 1000))
    found = []
    for post in sink.posts:
        assert (post.path, post.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
        for resource in ExportTraceServiceRequest.FromString(post.body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            found += [(about, span) for scope in resource.scope_spans for span in scope.spans]
    return found


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_prediction_is_a_span_with_its_parts_inside(app: Flask, sink: HttpSink) -> None:
    headers = {**JPEG, "X-Request-Id": "from-the-caller"}
    app.test_client().post("/v1/classify", data=picture(), headers=headers)

    by_name = {span.name: span for _, span in spans(sink)}
    request = by_name.pop("POST /v1/classify")
    about = spans(sink)[0][0]

    assert (about["service.name"], about["deployment.environment.name"], about["cask.role"]) == ("cask", "test", "web")
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/classify",
        "http.response.status_code": 200,
        "cask.request_id": "from-the-caller",
    }
    assert set(by_name) == {"decode", "engine queue", "predict"}
    assert all(each.parent_span_id == request.span_id for each in by_name.values())
    assert all(attributes(each)["cask.model"] == "classifier" for each in by_name.values())
    # The fake engine says 1 ms in line and 2 ms for computing, though it takes no time at all.
    took = {name: round((each.end_time_unix_nano - each.start_time_unix_nano) / 1e6) for name, each in by_name.items()}
    assert (took["engine queue"], took["predict"]) == (1, 2)
    assert by_name["engine queue"].end_time_unix_nano == by_name["predict"].start_time_unix_nano


def test_a_caller_decides_the_trace_and_whether_it_is_made(app: Flask, sink: HttpSink) -> None:
    client = app.test_client()
    client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"})
    client.get("/v1/models/classifier", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    client.get("/v1/models/detector", headers={"traceparent": "nonsense"})

    found = {attributes(span)["http.route"]: span for _, span in spans(sink)}

    named = found["/v1/models"]
    assert (named.trace_id.hex(), named.parent_span_id.hex(), named.trace_state) == (TRACE, PARENT, "vendor=1")
    # Of the two under one address only the last is there: the other's caller requested none.
    assert len(spans(sink)) == 2
    assert found["/v1/models/{name}"].trace_id.hex() != TRACE


def test_probes_are_traced_for_who_asks_only(app: Flask, sink: HttpSink) -> None:
    client = app.test_client()
    client.get("/livez")
    client.get("/livez", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})

    assert [span.trace_id.hex() for _, span in spans(sink)] == [TRACE]


def test_a_failure_of_ours_is_an_error_and_a_callers_is_none(app: Flask, sink: HttpSink, tmp_path: Path) -> None:
    engine: FakeEngine = app.extensions["predictor"].engine
    client = app.test_client()
    client.post("/v1/classify", data=b"no picture", headers=JPEG)
    engine.error = fakes.CaskError("broken")
    client.post("/v1/classify", data=picture(), headers=JPEG)

    found = [(attributes(span)["http.response.status_code"], span.status.code) for _, span in spans(sink)]

    assert found == [(415, 0), (500, 2)]


def test_without_an_endpoint_nothing_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests import fakes;"
        "app = fakes.make_app(Path(sys.argv[1])); print(app.test_client().get('/livez').status_code);"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'sentry_sdk', 'prometheus_client'))])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)

    assert done.stdout == b"200\n[]\n"
