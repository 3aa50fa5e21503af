"""Every request is counted under the address that OpenAPI gives it, also what never comes to Flask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.telemetry import metrics
from app.telemetry.metrics import IN_FLIGHT, REFUSED, REQUEST_SECONDS, REQUESTS, WEB_QUEUE_SECONDS
from app.telemetry.shards import MetricsShard
from app.web.middleware.request_metrics import Measures, Routes
from tests import fakes
from tests.fakes import FakeEngine, picture

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The real app, counting into a folder of its own."""
    yield fakes.make_app(tmp_path, FakeEngine(), request_microcache_ms=1000)
    metrics._use(MetricsShard.in_memory())
    metrics._place = None


def counted(app: Flask) -> dict[tuple[str, ...], float]:
    sums = metrics.read(app.extensions["settings"].state_dir)
    return {labels: row[0] for labels, row in sums.get(REQUESTS, {}).items()}


@pytest.mark.parametrize(
    ("path", "method", "route"),
    [
        ("/v1/detect", "POST", "/v1/detect"),
        ("/v1/detect", "GET", "/v1/detect"),
        ("/v1/models/detector", "GET", "/v1/models/{name}"),
        ("/v2/models/detector/versions/1/infer", "POST", "/v2/models/{name}/versions/{version}/infer"),
        ("/static/css/theme.css", "GET", "/static/{filename}"),
        ("/nowhere/12345", "GET", "(none)"),
        ("", "GET", "/"),
        ("/v1/detect", "BREW", "/v1/detect"),
    ],
)
def test_a_path_has_the_address_that_openapi_gives_it(app: Flask, path: str, method: str, route: str) -> None:
    assert app.extensions["routes"].of(path, method) == route


def test_each_answer_is_counted_wherever_it_came_from(app: Flask) -> None:
    client = app.test_client()
    client.post("/v1/classify", data=picture(), headers=JPEG)
    client.post("/v1/classify", data=b"no picture", headers=JPEG)
    client.get("/v1/models")
    client.get("/v1/models")  # from the microcache, without Flask
    client.open("/v1/models", method="BREW")

    assert counted(app) == {
        ("/v1/classify", "POST", "200", "app"): 1,
        ("/v1/classify", "POST", "415", "app"): 1,
        ("/v1/models", "GET", "200", "app"): 2,
        ("/v1/models", "other", "405", "app"): 1,
    }
    sums = metrics.read(app.extensions["settings"].state_dir)
    assert {labels: row[0] for labels, row in sums[REFUSED].items()} == {
        ("image_unsupported", "app"): 1,
        ("method_not_allowed", "app"): 1,
    }
    assert sum(sums[REQUEST_SECONDS]["/v1/classify",][:-1]) == 2
    assert sums[IN_FLIGHT][()] == [0]


def test_an_application_that_raises_is_counted_as_500(tmp_path: Path, app: Flask) -> None:
    def broken(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError("broken")

    routes = Routes(app.url_map)
    metrics.begin(app.extensions["settings"].state_dir, "web")
    with pytest.raises(ValueError, match="broken"):
        Measures(broken, routes, lambda: None)({"PATH_INFO": "/livez", "REQUEST_METHOD": "GET"}, lambda *_: None)

    assert counted(app) == {("/livez", "GET", "500", "app"): 1}
    assert metrics.read(app.extensions["settings"].state_dir)[IN_FLIGHT][()] == [0]


@pytest.mark.parametrize(("silence_seconds", "lines"), [(0.0, 1), (60.0, 0)])
def test_answer_that_comes_after_apache_has_given_up_is_told(
    app: Flask, caplog: pytest.LogCaptureFixture, silence_seconds: float, lines: int
) -> None:
    metrics.begin(app.extensions["settings"].state_dir, "web")
    measures = Measures(lambda environ, start_response: [], Routes(app.url_map), lambda: None, silence_seconds)

    measures({"PATH_INFO": "/v1/models/cones", "REQUEST_METHOD": "GET"}, lambda *_: None)  # type: ignore[arg-type]

    found = [each.getMessage() for each in caplog.records if "its caller got 504" in each.getMessage()]
    assert len(found) == lines
    assert all(each.startswith("GET /v1/models/{name} answered after 0 s") for each in found)


def test_the_wait_in_apache_is_noted_where_apache_tells_it(app: Flask) -> None:
    client = app.test_client()
    client.get("/livez")
    assert WEB_QUEUE_SECONDS not in metrics.read(app.extensions["settings"].state_dir)

    client.get("/version", environ_overrides={"mod_wsgi.queue_start": "1.5"})

    assert sum(metrics.read(app.extensions["settings"].state_dir)[WEB_QUEUE_SECONDS][()][:-1]) == 1
