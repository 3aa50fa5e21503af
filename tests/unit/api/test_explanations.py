"""explain=true through the API: the engine is asked twice, about the same version."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from app.inference.results import ClassifyOptions, ExplainOptions
from tests import fakes
from tests.fakes import FakeEngine


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> FlaskClient:
    return fakes.make_app(tmp_path, engine).test_client()


def classify(client: FlaskClient, query: str, count: int = 1) -> TestResponse:
    files = [(io.BytesIO(fakes.picture(64, 48)), f"{number}.jpg") for number in range(count)]
    return client.post(f"/v1/classify{query}", data={"image": files})


def test_an_answer_says_where_the_model_looked(client: FlaskClient, engine: FakeEngine) -> None:
    response = classify(client, "?explain=true&top_k=1")

    (result,) = response.json["results"]
    found = result["explanation"]
    assert [type(each.options[0]) for each in engine.asked] == [ClassifyOptions, ExplainOptions]
    assert engine.asked[0].manifest is engine.asked[1].manifest
    assert found["label"] == result["predictions"][0]["label"] == engine.asked[1].options[0].label
    assert found["map"] == [[0.0, 1.0], [0.25, 0.5]]
    # The input is a square from the middle of 64 × 48 pixels.
    assert found["region"] == {"x_min": 8.0, "y_min": 0.0, "x_max": 56.0, "y_max": 48.0}
    kind, _, data = found["overlay"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 48)
    assert "explain;dur=" in response.headers["Server-Timing"]


@pytest.mark.parametrize("query", ["", "?explain=false", "?explain=false&explain_label=cone"])
def test_who_does_not_ask_pays_nothing(client: FlaskClient, engine: FakeEngine, query: str) -> None:
    response = classify(client, query)

    assert "explanation" not in response.json["results"][0]
    assert len(engine.asked) == 1


def test_a_label_can_be_chosen(client: FlaskClient, engine: FakeEngine) -> None:
    response = classify(client, "?explain_label=helmet")

    assert response.json["results"][0]["explanation"]["label"] == "helmet"


@pytest.mark.parametrize(
    ("query", "count", "status", "code"),
    [
        ("?explain_label=dragon", 1, 422, "option_invalid"),
        ("?explain=perhaps", 1, 422, "option_invalid"),
        ("?explain=true", 9, 413, "too_many_images"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_before_anything_is_computed(
    client: FlaskClient, engine: FakeEngine, query: str, count: int, status: int, code: str
) -> None:
    response = classify(client, query, count)

    assert (response.status_code, response.json["code"]) == (status, code)
    assert engine.asked == []


def test_detectors_know_no_such_option(client: FlaskClient) -> None:
    response = client.post("/v1/detect?explain=true", data={"image": (io.BytesIO(fakes.picture()), "a.jpg")})

    assert response.status_code == 422


def test_the_page_lays_it_over_the_picture(client: FlaskClient) -> None:
    form = {"image_upload": (io.BytesIO(fakes.picture()), "a.jpg"), "task": "classify", "explain": "true"}

    page = client.post("/upload", data=form).text

    assert 'class="overlay" src="data:image/png;base64,' in page
    assert 'value="true" checked>' in page
    assert "explain=true" in page
