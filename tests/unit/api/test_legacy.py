"""POST / and POST /predict: what clients of the earlier service send, and get."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.inference.results import DetectOptions
from tests import fakes
from tests.fakes import FakeEngine, picture

WHOLE = {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0, "score": 1.0}
PATHS = pytest.mark.parametrize("path", ["/", "/predict"])


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> Iterator[FlaskClient]:
    """Sends requests to the real app with a fake engine."""
    yield fakes.make_app(tmp_path, engine).test_client()


def encoded(width: int = 64, height: int = 48) -> str:
    return base64.b64encode(picture(width, height, "PNG", (0, 0, 7))).decode()


def entry(image: str, **features: Any) -> dict[str, Any]:
    return {"image": {"content": image}, "features": [features]}


@PATHS
def test_all_entries_are_answered_in_their_order(client: FlaskClient, path: str) -> None:
    response = client.post(
        path, json={"requests": [entry(encoded()), entry(encoded(480, 64)), {"image": {"content": encoded()}}]}
    )

    responses = response.json["responses"]
    assert response.status_code == 200
    assert [list(each) for each in responses] == [["normalizedVertices"]] * 3
    # Fractions of the image, whatever its shape; the label is the colour that the model saw.
    assert responses[1]["normalizedVertices"] == [{**WHOLE, "label": "7"}]


@PATHS
def test_flat_form_gets_the_flat_answer(client: FlaskClient, path: str) -> None:
    response = client.post(path, json={"image": encoded(), "nms_iou": 0.3})

    assert response.json == {"normalizedVertices": [{**WHOLE, "label": "7"}]}
    assert "decode" in response.headers["Server-Timing"]


def test_wishes_are_those_of_each_entry_and_0_means_0(client: FlaskClient, engine: FakeEngine) -> None:
    features = {"min_height": 0, "min_width": 0, "maxResults": 0, "score_th": 0, "nms_iou": 0}
    image = encoded(32, 32)

    client.post("/predict", json={"requests": [entry(image, **features), entry(image, score_th=0.9, maxResults=None)]})

    zero, other = engine.asked[0].options
    assert zero == DetectOptions(0, 0, 0, 0, 0)
    assert other == DetectOptions(score_threshold=0.9)
    assert len(engine.asked) == 1, "they share a batch"


def test_box_is_top_left_corner_width_and_height_as_fractions(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fakes.FakeModel,
        "_answer",
        lambda *_: [fakes.Detection("cone", 0.5, fakes.Box(8.0, 6.0, 24.0, 12.0))],
    )

    found = client.post("/", json={"image": encoded(64, 48)}).json["normalizedVertices"][0]

    # The model's input is the picture at half its size.
    assert found == {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.25, "score": 0.5, "label": "cone"}


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("score_th", "nms_iou") for value in (-0.1, 1.1, "0.5", True, [])),
        *({"maxResults": value} for value in (-1, 1001, 2.5, "3", True)),
        *({name: value} for name in ("min_height", "min_width") for value in (-1, 2e6, "3")),
        {"score_threshold": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["flat", "entries"])
def test_wish_out_of_range_is_refused(client: FlaskClient, form: str, wrong: dict[str, Any]) -> None:
    body = (
        {"image": encoded(), **wrong} if form == "flat" else {"requests": [entry(encoded()), entry(encoded(), **wrong)]}
    )

    response = client.post("/predict", json=body)

    assert (response.status_code, response.json["code"]) == (422, "option_invalid")
    assert "score_th" in response.json["hint"]


def test_type_names_a_detector_or_the_only_label_wanted(client: FlaskClient, engine: FakeEngine) -> None:
    by_model = client.post("/", json={"image": encoded(), "type": "detector"})
    by_label = client.post("/", json={"image": encoded(), "type": "Helmet"})
    unknown = client.post("/", json={"image": encoded(), "type": "safetycone"})

    assert len(by_model.json["normalizedVertices"]) == 1
    assert by_label.json == {"normalizedVertices": []}
    assert (unknown.status_code, unknown.json["code"]) == (404, "model_not_found")
    assert unknown.json["hint"] == "Detectors: detector. Labels: cone, helmet, person."


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{}", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b'{"requests": [', 400, "bad_request"),
        (b'{"requests": []}', 422, "option_invalid"),
        (b'{"requests": [{}]}', 422, "option_invalid"),
        (b'{"requests": [{"image": "AAAA"}]}', 422, "option_invalid"),
        (b'{"image": ""}', 422, "image_empty"),
        (b'{"image": "!"}', 422, "image_undecodable"),
        (b'{"image": "AAAA"}', 415, "image_unsupported"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_document(
    client: FlaskClient, body: bytes, status: int, code: str
) -> None:
    response = client.post("/predict", data=body, content_type="application/json")

    assert (response.status_code, response.json["code"]) == (status, code)
    assert response.content_type == "application/problem+json"


def test_too_many_entries_are_refused(client: FlaskClient) -> None:
    response = client.post("/predict", json={"requests": [entry(encoded())] * 33})

    assert (response.status_code, response.json["code"]) == (413, "too_many_images")


def test_another_content_type_is_refused(client: FlaskClient) -> None:
    assert client.post("/predict", data=picture(), content_type="image/jpeg").json["code"] == "media_type_unsupported"


def test_the_page_is_still_there(client: FlaskClient) -> None:
    assert client.get("/").mimetype == "text/html"
