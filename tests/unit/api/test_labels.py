"""A label is asked for by its name or an alias of it, at every address, and before the number is cut off."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.errors import ManifestError
from app.inference.results import Box, Detection, DetectOptions
from app.models import manifests
from tests import fakes
from tests.fakes import FakeEngine, FakeModel

TEXT = base64.b64encode(fakes.picture(64, 48, "PNG", (0, 0, 7))).decode()
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
FOUND = [
    Detection("cone", 0.9, Box(0, 0, 16, 12)),
    Detection("vest", 0.8, Box(0, 0, 8, 6)),
    Detection("cone", 0.7, Box(0, 0, 0.5, 0.5)),
    Detection("vest", 0.6, Box(8, 0, 24, 24)),
]


def answer(_: Any, __: Any, requested: DetectOptions) -> list[Detection]:
    """As ``selection.select`` does it: all filters, then the number."""
    rows = [row for row in FOUND if requested.label in ("", row.label) and row.score >= requested.score_threshold]
    rows = [row for row in rows if row.box.x_max - row.box.x_min >= requested.min_width]
    return [row for row in rows if row.box.y_max - row.box.y_min >= requested.min_height][: requested.max_results]


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """Sends requests to the real app whose detector finds cones and vests."""
    labels = ["cone", "vest", "Sign"]
    aliases = {"safetycone": "cone", "waistcoat": "vest"}
    fakes.write_model(tmp_path / "models", "detector", task="detect", labels=labels, aliases=aliases)
    fakes.write_model(tmp_path / "models", "classifier", labels=labels, aliases=aliases)
    monkeypatch.setattr(FakeModel, "_answer", answer)
    yield fakes.make_app(tmp_path, engine).test_client()


def labels_at(client: FlaskClient, path: str, label: str, most: int) -> list[str]:
    """What an address finds of a label, at most so many."""
    v1 = {"images": [TEXT], "label": label, "max_results": most}
    before = {"score_th": 0.5, "maxResults": most, "type": label}
    asked: dict[str, Any] = {
        "/v1/detect": v1,
        "/v1/ensemble": v1,
        "/predict": {"image": TEXT, **before},
        "/": {"requests": [{"image": {"content": TEXT}, "features": [before]}]},
        "/api": {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "Image.detect",
            "params": {"image": TEXT, "label": label, "max_results": most},
        },
        "/v2/models/detector/infer": {"inputs": [TENSOR], "parameters": {"label": label, "max_results": most}},
    }
    response = client.post(path, json=asked[path])
    assert response.status_code == 200, response.get_data(as_text=True)
    document = response.json
    if path.startswith("/v2"):
        return [each for each in document["outputs"][0]["data"] if each]
    document = document.get("result", document)
    rows = document.get("results") or document.get("responses") or [document]
    return [row["label"] for row in rows[0].get("detections") or rows[0].get("normalizedVertices") or []]


PATHS = ["/v1/detect", "/v1/ensemble", "/predict", "/", "/api", "/v2/models/detector/infer"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("label", ["vest", "VEST", "waistcoat", "Waistcoat"])
def test_label_is_filtered_before_the_number_is_cut_off(client: FlaskClient, path: str, label: str) -> None:
    assert labels_at(client, path, label, 1) == ["vest"]
    assert labels_at(client, path, label, 100) == ["vest", "vest"]
    assert labels_at(client, path, "sign", 100) == []


@pytest.mark.parametrize("path", PATHS)
def test_earlier_clients_own_type_is_a_cone(client: FlaskClient, path: str) -> None:
    assert set(labels_at(client, path, "safetycone", 10)) == {"cone"}


def test_job_with_a_label_that_nobody_knows_is_refused_at_once(client: FlaskClient) -> None:
    response = client.post("/v1/jobs", json={"images": [TEXT], "label": "lorry"})

    assert (response.status_code, response.json["code"]) == (422, "option_invalid")
    assert response.json["hint"] == "It knows: cone, vest, Sign, safetycone, waistcoat."
    assert client.post("/v1/jobs", json={"images": [TEXT], "label": "safetycone"}).status_code == 202


def test_alias_names_the_label_to_explain(
    client: FlaskClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    found = client.post("/v1/classify", json={"images": [TEXT], "explain_label": "safetycone"}).json

    assert found["results"][0]["explanation"]["label"] == "cone"


def test_least_size_is_filtered_before_the_number_is_cut_off(client: FlaskClient) -> None:
    # The model's input is the picture at half its size.
    found = client.post("/predict", json={"image": TEXT, "min_height": 30, "maxResults": 1}).json

    assert [row["label"] for row in found["normalizedVertices"]] == ["vest"]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"min_height": 0.03}, 3),
        ({"min_width": 0.03}, 3),
        ({"min_height": 0.5}, 2),
        ({"min_width": 0.6}, 0),
        ({"min_height": 0.999}, 1),
        ({"min_height": 1}, 4),
        ({"min_height": 1.0}, 4),
        ({"min_height": 0}, 4),
        ({"min_width": 3}, 3),
        ({"min_height": 0.5, "min_width": 32}, 2),
        ({"min_height": 0.5, "min_width": 0.5, "type": "cone"}, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/predict", "/"])
def test_least_size_below_1_is_a_fraction_of_the_image(
    client: FlaskClient, path: str, features: dict[str, Any], expected: int
) -> None:
    found = client.post(path, json={"image": TEXT, **features}).json

    assert len(found["normalizedVertices"]) == expected


def test_least_size_of_the_json_api_stays_in_pixels(client: FlaskClient, engine: FakeEngine) -> None:
    found = client.post("/v1/detect", json={"images": [TEXT], "min_height": 0.5}).json

    assert len(found["results"][0]["detections"]) == 4


def test_members_of_an_ensemble_are_cut_off_after_merging(client: FlaskClient, engine: FakeEngine) -> None:
    client.post("/v1/ensemble?max_results=1", json={"images": [TEXT]})
    client.post("/v1/ensemble?max_results=500", json={"images": [TEXT]})

    assert [each.options[0].max_results for each in engine.asked] == [100, 500]


@pytest.mark.parametrize(
    "aliases", [{"x": "lorry"}, {"cone": "helmet"}, {"": "cone"}, "cone", ["cone"], {"x": 5}], ids=str
)
def test_alias_that_means_nothing_is_refused(tmp_path: Path, aliases: Any) -> None:
    folder = fakes.write_model(tmp_path, aliases=aliases)

    with pytest.raises(ManifestError, match="alias"):
        manifests.read(folder)
