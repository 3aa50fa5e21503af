"""POST /v1/classify and /v1/detect: three ways to send images, one shape of answer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.inference.results import ClassifyOptions, DetectOptions
from tests import bad_input, fakes
from tests.fakes import FakeEngine, picture


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Flask:
    """The real app over a FakeEngine."""
    return fakes.make_app(tmp_path, engine)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A caller."""
    return app.test_client()


def numbered(number: int, width: int = 64, height: int = 48) -> bytes:
    return picture(width, height, "PNG", (0, 0, number))


def found(document: dict[str, Any], key: str = "predictions") -> list[str]:
    return [result[key][0]["label"] for result in document["results"]]


def test_raw_bytes_of_one_image_are_answered(client: FlaskClient) -> None:
    response = client.post("/v1/classify", data=numbered(7), content_type="image/png")

    assert response.status_code == 200
    assert found(response.get_json()) == ["7"]


def test_octet_stream_is_an_image_too(client: FlaskClient) -> None:
    response = client.post("/v1/classify", data=numbered(7), content_type="application/octet-stream")

    assert found(response.get_json()) == ["7"]


def test_parts_of_a_form_are_answered_in_the_order_sent(client: FlaskClient) -> None:
    body, content_type = bad_input.multipart(numbered(3), numbered(1), numbered(2))

    response = client.post("/v1/classify", data=body, content_type=content_type)

    assert found(response.get_json()) == ["3", "1", "2"]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_in_json_is_answered(client: FlaskClient, prefix: str) -> None:
    images = [prefix + base64.b64encode(numbered(number)).decode() for number in (3, 1)]

    response = client.post("/v1/classify", json={"images": images})

    assert found(response.get_json()) == ["3", "1"]


def test_answer_names_model_sizes_times_and_request(client: FlaskClient, app: Flask) -> None:
    response = client.post("/v1/detect", data=numbered(7, 100, 50), content_type="image/png")

    document, manifest = response.get_json(), app.extensions["predictor"].manifests[1]
    assert list(document) == ["model", "results", "request_id"]
    assert document["model"] == {"name": "detector", "version": "1", "digest": manifest.digest}
    assert document["results"] == [
        {
            "width": 100,
            "height": 50,
            "detections": [
                {"label": "7", "score": 1.0, "box": {"x_min": 0.0, "y_min": 0.0, "x_max": 100, "y_max": 50}}
            ],
        }
    ]
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert [part.split(";")[0] for part in response.headers["Server-Timing"].split(", ")] == [
        *("decode", "queue", "predict", "engine")
    ]


def test_thirty_two_images_are_one_request_in_turns(client: FlaskClient, engine: FakeEngine) -> None:
    body, content_type = bad_input.multipart(*[numbered(number) for number in range(32)])

    response = client.post("/v1/classify", data=body, content_type=content_type)

    assert found(response.get_json()) == [str(number) for number in range(32)]
    a_turn = client.application.extensions["admission"].images_a_turn
    assert [len(each.options) for each in engine.asked] == [a_turn] * (32 // a_turn)


def test_options_come_from_address_form_and_json(client: FlaskClient, engine: FakeEngine) -> None:
    body, content_type = bad_input.multipart(numbered(1), top_k=2)
    client.post("/v1/classify?top_k=1", data=numbered(1), content_type="image/png")
    client.post("/v1/classify?top_k=9", data=body, content_type=content_type)
    client.post("/v1/classify", data=bad_input.json_body(numbered(1), top_k=0), content_type="application/json")

    assert [each.options for each in engine.asked] == [[ClassifyOptions(top_k)] for top_k in (1, 2, 0)]


def test_detection_takes_all_of_its_options(client: FlaskClient, engine: FakeEngine) -> None:
    query = "score_threshold=0&iou_threshold=1&max_results=0&min_width=2&min_height=4"

    client.post(f"/v1/detect?{query}", data=numbered(1, 32, 32), content_type="image/png")

    assert engine.asked[0].options == [DetectOptions(0.0, 1.0, 0, 2.0, 4.0)]


def test_timeout_of_the_caller_becomes_the_deadline(client: FlaskClient, engine: FakeEngine) -> None:
    for timeout in ("100", "10"):
        headers = {"X-Request-Timeout": timeout}
        client.post("/v1/classify", data=numbered(1), content_type="image/png", headers=headers)

    assert 80 < engine.asked[0].deadline - engine.asked[1].deadline < 100


def test_models_are_listed_with_state_and_defaults(client: FlaskClient, engine: FakeEngine) -> None:
    engine.states = {"detector@1": "loading"}

    rows = client.get("/v1/models").get_json()["models"]

    assert [(row["name"], row["task"], row["state"]) for row in rows] == [
        ("classifier", "classify", "ready"),
        ("detector", "detect", "loading"),
    ]
    assert rows[0]["defaults"] == {"top_k": 5}
    assert rows[0]["labels"] == ["cone", "helmet", "person"]


def test_one_model_is_shown_with_its_error(client: FlaskClient, engine: FakeEngine) -> None:
    engine.states = {"detector@1": "failed"}

    document = client.get("/v1/models/detector?version=1").get_json()

    assert (document["state"], document["error"]) == ("failed", "its weights are missing")
    assert document["architecture"] == "fake"


def test_answer_is_plain_json(client: FlaskClient) -> None:
    response = client.post("/v1/classify", data=numbered(1), content_type="image/png")

    assert response.mimetype == "application/json"
    assert json.loads(response.data)["results"]
