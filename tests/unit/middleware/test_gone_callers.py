"""Whoever goes away in mid-request is no failure of ours, wherever its body was being read."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from app.telemetry import metrics
from app.telemetry.metrics import REQUESTS
from app.telemetry.shards import MetricsShard
from tests import bad_input, fakes
from tests.fakes import FakeEngine

IMAGE = fakes.picture()
FORM, FORM_TYPE = bad_input.multipart(IMAGE)
JSON = bad_input.json_body(IMAGE)
WAYS = {
    "raw": ("/v1/detect", IMAGE, "image/jpeg"),
    "form": ("/v1/detect", FORM, FORM_TYPE),
    "JSON": ("/v1/classify", JSON, "application/json"),
    "page": ("/upload", FORM, FORM_TYPE),
    "job": ("/v1/jobs", FORM, FORM_TYPE),
    "old address": ("/predict", JSON, "application/json"),
    "JSON-RPC": ("/api", JSON, "application/json"),
    "tensors": ("/v2/models/detector/infer", JSON, "application/json"),
}


class Broken(io.RawIOBase):
    """What mod_wsgi gives to read from: the beginning, then its own exception."""

    def __init__(self, beginning: bytes) -> None:
        self._rest = io.BytesIO(beginning)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._rest.read(len(buffer))
        if not data:
            raise OSError(
                "Apache/mod_wsgi request data read error: Partial results are valid but processing is incomplete."
            )
        buffer[: len(data)] = data
        return len(data)


class Ended(Broken):
    """What other servers give: the beginning, then nothing more."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    yield fakes.make_app(tmp_path, FakeEngine())
    metrics._use(MetricsShard.in_memory())
    metrics._place = None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Broken, Ended])
def test_a_body_that_stops_counts_as_499_and_gets_one_answer(
    app: Flask, way: str, kind: type[Broken], caplog: pytest.LogCaptureFixture
) -> None:
    path, body, content_type = WAYS[way]

    with caplog.at_level(logging.WARNING):
        answer = app.test_client().post(
            path,
            content_type=content_type,
            environ_overrides={"wsgi.input": kind(body[: len(body) // 2]), "CONTENT_LENGTH": str(len(body))},
        )

    assert 400 <= answer.status_code < 500
    assert [record.getMessage() for record in caplog.records] == []
    sums = metrics.read(app.extensions["settings"].state_dir).get(REQUESTS, {})
    assert {labels[-2] if labels[-1] == "app" else labels for labels in sums} == {metrics.GONE}, sums.keys()
