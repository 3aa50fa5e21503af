"""/v2: tensors in JSON and in binary, and failures as the protocol has them. The stock client: tests/apache."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from app import tasks
from app.errors import EngineBusyError
from app.inference.results import ClassifyOptions, DetectOptions
from app.tasks.base import Task
from tests import fakes
from tests.fakes import FakeEngine, picture

INFER = "/v2/models/classifier/infer"
HEADER = "Inference-Header-Content-Length"


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> FlaskClient:
    """A caller of the real app with a fake engine."""
    return fakes.make_app(tmp_path, engine).test_client()


def encoded(number: int) -> str:
    return base64.b64encode(picture(64, 48, "PNG", (0, 0, number))).decode()


def image_tensor(*numbers: int) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [len(numbers)], "data": [encoded(each) for each in numbers]}


def output(document: dict[str, Any], name: str) -> Any:
    row = next(each for each in document["outputs"] if each["name"] == name)
    return np.array(row["data"], object if row["datatype"] == "BYTES" else float).reshape(row["shape"]).tolist()


def test_server_model_and_index_tell_who_is_there(client: FlaskClient) -> None:
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    assert client.get("/v2/models/classifier/ready").json == {"name": "classifier", "ready": True}
    assert client.get("/v2/models/classifier/versions/1/ready").status_code == 200
    assert client.get("/v2/models/classifier").json["versions"] == ["1"]
    assert client.get("/v2/models/classifier").json == client.get("/v2/models/classifier/versions/1").json
    for body in (b"", b"{}", b'{"ready": true}'):
        rows = client.post("/v2/repository/index", data=body).json
        assert [(row["name"], row["state"]) for row in rows] == [("classifier", "READY"), ("detector", "READY")]


def test_model_that_loads_is_not_ready(client: FlaskClient, engine: FakeEngine) -> None:
    engine.states["classifier@1"] = "loading"

    model, all_models = client.get("/v2/models/classifier/ready"), client.get("/v2/health/ready")

    assert (
        (model.status_code, model.json["ready"]) == (all_models.status_code, all_models.json["ready"]) == (503, False)
    )
    assert model.headers["Retry-After"]
    assert [row["name"] for row in client.post("/v2/repository/index", json={"ready": True}).json] == ["detector"]


def test_encoded_images_are_named_in_their_order(client: FlaskClient, engine: FakeEngine) -> None:
    body = {"id": "42", "parameters": {"top_k": 1}, "inputs": [image_tensor(3, 1)]}

    document = client.post(INFER, json=body).json

    assert (document["id"], document["model_name"], document["model_version"]) == ("42", "classifier", "1")
    assert output(document, "labels") == [["3"], ["1"]]
    assert output(document, "scores") == [[1.0], [1.0]]
    assert output(document, "sizes") == [[64, 48], [64, 48]]
    assert engine.asked[0].options == [ClassifyOptions(top_k=1)] * 2


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [[2, 4, 6, 3], [4, 6, 3]])
def test_pixels_are_seen_as_they_are(client: FlaskClient, shape: list[int], nested: bool) -> None:
    pixels = np.full(shape, 0, np.uint8)
    pixels[..., 2] = 9
    data = (pixels if nested else pixels.ravel()).tolist()

    document = client.post(
        INFER, json={"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": shape, "data": data}]}
    ).json

    assert output(document, "labels") == [["9"]] * (shape[0] if len(shape) == 4 else 1)
    assert output(document, "sizes")[0] == [6, 4]


def test_boxes_are_filled_up_to_the_same_number(
    client: FlaskClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: Any, image: np.ndarray, requested: DetectOptions) -> list[fakes.Detection]:
        return [fakes.Detection("cone", 0.5, fakes.Box(0, 0, 16, 12))] * int(fakes.name_of(image))

    monkeypatch.setattr(fakes.FakeModel, "_answer", answer)
    body = {"parameters": {"score_threshold": 0, "max_results": 7}, "inputs": [image_tensor(1, 0, 2)]}

    document = client.post("/v2/models/detector/versions/1/infer", json=body).json

    assert output(document, "counts") == [1, 0, 2]
    assert output(document, "labels") == [["cone", ""], ["", ""], ["cone", "cone"]]
    assert output(document, "boxes")[0] == [[0.0, 0.0, 32.0, 24.0], [0.0] * 4]
    assert engine.asked[0].options[0].max_results == 7


@pytest.mark.parametrize("task", tasks.ALL, ids=tasks.OFFERED)
def test_every_tensor_of_a_task_comes_in_json_and_in_binary(tmp_path: Path, engine: FakeEngine, task: Task) -> None:
    fakes.write_model(tmp_path / "models", "mine", task=task.name)
    client = fakes.make_app(tmp_path, engine).test_client()
    promised = {row["name"]: row for row in client.get("/v2/models/mine").json["outputs"]}

    def infer(*, is_binary: bool) -> dict[str, Any]:
        body = {"parameters": {"binary_data_output": is_binary}, "inputs": [image_tensor(1, 2)]}
        answer = client.post("/v2/models/mine/infer", json=body)
        assert answer.status_code == 200, answer.text
        head = json.loads(answer.data[: int(answer.headers.get(HEADER, len(answer.data)))])
        assert {row["name"] for row in head["outputs"]} == {*(row["name"] for row in task.tensors), "sizes"}
        return {row["name"]: row for row in head["outputs"]}

    in_json, in_binary = infer(is_binary=False), infer(is_binary=True)
    for name, row in in_json.items():
        assert (row["datatype"], row["shape"][0]) == (promised[name]["datatype"], 2)
        fits = [side in (-1, found) for side, found in zip(promised[name]["shape"], row["shape"], strict=True)]
        assert all(fits), (row, promised[name])
        assert "data" in row and "binary_data_size" in in_binary[name]["parameters"]
        assert in_binary[name]["shape"] == row["shape"]


def test_binary_tensors_come_and_go_behind_the_json(client: FlaskClient) -> None:
    image = picture(64, 48, "PNG", (0, 0, 5))
    element = struct.pack("<I", len(image)) + image
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(element)}}
    params = [{"name": "labels", "parameters": {"binary_data": True}}, {"name": "scores"}]
    head = json.dumps({"inputs": [tensor], "outputs": params}).encode()

    response = client.post(INFER, data=head + element, headers={HEADER: str(len(head))})

    length = int(response.headers[HEADER])
    document = json.loads(response.data[:length])
    assert response.data[length:] == struct.pack("<I", 1) + b"5"
    assert [row["name"] for row in document["outputs"]] == ["labels", "scores"]
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 5}
    assert document["outputs"][1]["data"] == [1.0]


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "tensor_invalid"),
    ({"inputs": []}, 400, "tensor_invalid"),
    ({"inputs": [image_tensor(1), image_tensor(1)]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "name": "x"}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "datatype": "FP32"}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "shape": [2]}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "shape": [-1]}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "shape": [2**31] * 8}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "data": [5]}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(1), "data": ["é"]}]}, 400, "tensor_invalid"),
    ({"inputs": [{**image_tensor(), "shape": [0]}]}, 400, "image_missing"),
    ({"inputs": [{**image_tensor(1), "data": ["AAAA"]}]}, 415, "image_unsupported"),
    ({"inputs": [image_tensor(*range(33))]}, 413, "too_many_images"),
    ({"inputs": [image_tensor(1)], "outputs": [{"name": "boxes"}]}, 400, "tensor_invalid"),
    ({"inputs": [image_tensor(1)], "parameters": {"score_threshold": 0.5}}, 422, "option_invalid"),
    ({"inputs": [image_tensor(1)], "parameters": {"model": "detector"}}, 422, "option_invalid"),
    ({"inputs": [image_tensor(1)], "parameters": {"top_k": "1"}}, 422, "option_invalid"),
    ({"inputs": [image_tensor(1)], "parameters": {"timeout": -1}}, 422, "option_invalid"),
    *(
        ({"inputs": [{"name": "pixels", "datatype": "UINT8", **row}]}, 400, "tensor_invalid")
        for row in (
            {"shape": [1, 1, 3], "data": [0, 0, 256]},
            {"shape": [1, 1, 3], "data": [0, 0, True]},
            {"shape": [1, 1, 3], "data": [0, 0]},
            {"shape": [1, 1, 4], "data": [0, 0, 0, 0]},
            {"shape": [3], "data": [0, 0, 0]},
            {"shape": [0, 1, 1, 3], "data": []},
            {"shape": [1, 1, 3]},
        )
    ),
]


@pytest.mark.parametrize(("body", "status", "code"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_tensors_are_refused_in_the_protocols_shape(
    client: FlaskClient, body: dict[str, Any], status: int, code: str
) -> None:
    response = client.post(INFER, json=body)

    assert (response.status_code, response.json["code"]) == (status, code)
    assert response.json["error"]
    assert response.mimetype == "application/json"


@pytest.mark.parametrize("length", ["x", "-1", "99999", "9" * 5000, "²", ""])
def test_wrong_length_of_the_json_is_refused(client: FlaskClient, length: str) -> None:
    response = client.post(INFER, data=b"{}", headers={HEADER: length.encode().decode("latin-1")})

    assert (response.status_code, response.json["code"]) == (400, "tensor_invalid")


@pytest.mark.parametrize(
    ("size", "binary"),
    [
        (8, b"\x02\0\0\0AB"),
        (6, b"\x09\0\0\0AB"),
        (2, b"\x02\0"),
        (6, b"\x02\0\0\0AB+"),
        (True, b"A"),
        ("6", b""),
        (-1, b""),
    ],
)
def test_binary_data_of_another_size_is_refused(client: FlaskClient, size: Any, binary: bytes) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()

    response = client.post(INFER, data=head + binary, headers={HEADER: str(len(head))})

    assert (response.status_code, response.json["code"]) == (400, "tensor_invalid")


@pytest.mark.parametrize("path", ["/v2/models/nobody", "/v2/models/nobody/ready", "/v2/models/classifier/versions/9"])
def test_model_that_is_not_there_is_404(client: FlaskClient, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.json["code"]) == (404, "model_not_found")
    assert response.json["error"].startswith("There is no model")


def test_compressed_body_is_refused(client: FlaskClient) -> None:
    response = client.post(INFER, data=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    assert (response.status_code, response.json["code"]) == (415, "content_encoding_unsupported")
    assert response.headers["Accept-Encoding"] == "identity"


def test_engine_that_is_busy_says_when_to_come_again(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = EngineBusyError("64 wait.", retry_after_seconds=3.0)

    response = client.post(INFER, json={"inputs": [image_tensor(1)]})

    assert (response.status_code, response.json["code"], response.headers["Retry-After"]) == (503, "engine_busy", "3")


def test_timeout_is_microseconds(client: FlaskClient, engine: FakeEngine) -> None:
    for timeout in (0, 2_000_000):
        client.post(INFER, json={"inputs": [image_tensor(1)], "parameters": {"timeout": timeout}})

    default, short = (each.deadline for each in engine.asked)
    assert default - short > 20


ADDED = {
    "priority": 1,
    "sequence_id": 7,
    "sequence_start": True,
    "content_type": "np",
    "headers": {"a": "b"},
    "x": None,
}


@pytest.mark.parametrize(
    "more",
    [
        {"model_name": "classifier", "model_version": "1", "from_grpc": False},
        {"parameters": None, "outputs": None, "id": None},
        {"parameters": ADDED},
        {"parameters": {"binary_data_output": None, "timeout": None, "top_k": None}},
        {"inputs": [{**image_tensor(3), "parameters": None, "custom": [1]}]},
        {"inputs": [{**image_tensor(3), "parameters": {"content_type": "base64", "binary_data_size": None}}]},
        {"outputs": []},
        {"outputs": [{"name": "labels", "parameters": None, "datatype": "BYTES", "shape": [1, 3], "data": None}]},
        {"outputs": [{"name": "labels", "parameters": {"classification": 3, "content_type": "str"}}]},
    ],
    ids=str,
)
def test_what_stock_clients_add_is_ignored(client: FlaskClient, more: dict[str, Any]) -> None:
    response = client.post(INFER, json={"inputs": [image_tensor(3)], **more})

    assert response.status_code == 200, response.data
    assert output(response.json, "labels") == [["3"]]


def test_tensor_in_shared_memory_is_refused_for_that(client: FlaskClient) -> None:
    shared = {"shared_memory_region": "one", "shared_memory_byte_size": 5}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": shared}

    response = client.post(INFER, json={"inputs": [tensor]})

    assert (response.status_code, response.json["error"]) == (400, "image lies in shared memory.")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/", 404),
        ("GET", "/v2/models/classifier/nothing", 404),
        ("POST", "/v2/models/classifier/versions/1/generate", 404),
        ("POST", "/v2/repository/models/classifier/load", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("GET", "/v2/models/nobody/config", 404),
        ("GET", "/v2/models/nobody/stats", 404),
        ("GET", "/v2/models/classifier/versions/9/stats", 404),
        ("GET", "/v2/models/classifier/infer", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2", 405),
        ("PUT", "/v2/models/classifier", 405),
        ("DELETE", "/v2/health/live", 405),
    ],
)
def test_unknown_address_or_method_fails_in_the_protocols_shape(
    client: FlaskClient, method: str, path: str, status: int
) -> None:
    response = client.open(path, method=method, headers={"Accept": "text/html"})

    assert (response.status_code, response.mimetype) == (status, "application/json")
    assert isinstance(response.json["error"], str)
    assert response.json["request_id"] == response.headers["X-Request-Id"]
    assert status != 405 or response.headers["Allow"]


def test_addresses_that_only_begin_alike_are_not_the_protocols(client: FlaskClient) -> None:
    assert client.get("/v2x").content_type == "application/problem+json"


def test_model_tells_its_configuration_and_what_it_computed(client: FlaskClient, engine: FakeEngine) -> None:
    config = client.get("/v2/models/detector/config").json
    of_one, of_all = client.get("/v2/models/detector/stats").json, client.get("/v2/models/stats").json

    assert config == client.get("/v2/models/detector/versions/1/config").json
    assert [(row["name"], row["data_type"]) for row in config["input"]] == [
        ("image", "TYPE_STRING"),
        ("pixels", "TYPE_UINT8"),
    ]
    assert of_one["model_stats"][0]["inference_stats"] == {"success": {"count": 0}}
    assert [row["name"] for row in of_all["model_stats"]] == ["classifier", "detector"]
    assert client.get("/v2/models").json == {"models": ["classifier", "detector"]}
    assert client.get("/v2/models/detector/versions/1/stats").json == of_one
