"""Who has the answer already is told so; nobody is told so of another answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests import fakes
from tests.fakes import FakeEngine, picture

PATHS = ("/v1/models", "/v1/models/classifier", "/openapi.json")


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> FlaskClient:
    """A caller."""
    return fakes.make_app(tmp_path, engine).test_client()


@pytest.mark.parametrize("path", PATHS)
def test_unchanged_answer_is_not_sent_again(client: FlaskClient, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status_code, first.headers["Cache-Control"]) == (200, "private, no-cache")
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["X-Request-Id"]


def test_changed_answer_is_sent(client: FlaskClient, engine: FakeEngine) -> None:
    predictor = client.application.extensions["predictor"]
    first = client.get("/v1/models")
    engine.states["classifier@1"], predictor._status = "loading", None
    again = client.get("/v1/models", headers={"If-None-Match": first.headers["ETag"]})

    assert again.status_code == 200
    assert again.headers["ETag"] != first.headers["ETag"]


def test_prediction_and_failure_have_none(client: FlaskClient) -> None:
    predicted = client.post("/v1/classify", data=picture(), content_type="image/jpeg", headers={"If-None-Match": "*"})
    missing = client.get("/v1/models/nobody", headers={"If-None-Match": "*"})

    assert (predicted.status_code, missing.status_code) == (200, 404)
    assert "ETag" not in predicted.headers
    assert missing.headers["Cache-Control"] == "no-store"
