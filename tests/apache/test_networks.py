"""Whole networks taken into the running service: a file, make model-add, make model-promote, and every door asks it."""

from __future__ import annotations

import base64
import html
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.engine.client import EngineClient
from app.inference import rle
from app.runtimes.importing.add_network import NewNetwork, add_network
from tests import bad_input, instance_networks, onnx_files, servers, stores
from tests.servers import Server

JPEG = {"Content-Type": "image/jpeg"}
JSON = {"Content-Type": "application/json"}
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    # The service's own user reads it.
    folder.chmod(0o755)
    yield stores.make(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    state_dir = servers.make_state_dir()
    with servers.start("test", servers.free_port(), state_dir, MODELS_DIR=str(store)) as running:
        servers.wait_until(running.is_ready, PATIENCE_SECONDS, "the models")
        yield running
    shutil.rmtree(state_dir, ignore_errors=True)


def take(
    server: Server, store: Path, content: bytes, task: str, name: str, kind: str = ".onnx", **changes: Any
) -> None:
    """Add the file to the store of the service that runs, and promote it."""
    path = store.parent / f"{name}{kind}"
    path.write_bytes(content)
    given = {"labels": ("cat", "dog", "owl"), "name": name, "version": "1"} | changes
    add_network(NewNetwork(path, task, **given), store)
    EngineClient(server.state_dir / "run" / "engine.sock").change("promote", name, "1", say=lambda line: None)


def test_every_door_asks_a_classifier_from_onnx(server: Server, store: Path, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    take(server, store, onnx_files.classifier(), "classify", "animals")
    address = "/v1/classify?model=animals"
    servers.wait_until(lambda: server.ask(address, image, JPEG).status == 200, PATIENCE_SECONDS, "the classifier")

    answer = server.ask(address, image, JPEG).json["results"][0]["predictions"]
    text = base64.b64encode(image).decode()
    call = {"jsonrpc": "2.0", "method": "Image.classify", "params": {"image": text, "model": "animals"}, "id": 1}
    named = server.ask("/api", json.dumps(call).encode(), JSON).json["result"]["results"][0]["predictions"]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    inferred = server.ask("/v2/models/animals/infer", json.dumps({"inputs": [tensor]}).encode(), JSON).json
    about = server.ask("/v1/models/animals").json

    assert sorted(each["label"] for each in answer) == ["cat", "dog", "owl"]
    assert sum(each["score"] for each in answer) == pytest.approx(1, abs=1e-4)
    assert named == answer
    labels = next(each for each in inferred["outputs"] if each["name"] == "labels")
    assert labels["data"][:3] == [each["label"] for each in answer]
    assert (about["architecture"], about["task"]) == ("onnx", "classify")
    assert about["computed_by"] == "openvino fp32"


def test_every_door_gives_the_same_vector(server: Server, store: Path, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    take(server, store, onnx_files.classifier(8), "embed", "look", labels=None)
    servers.wait_until(lambda: server.ask("/v1/embed", image, JPEG).status == 200, PATIENCE_SECONDS, "the embedder")

    vector = server.ask("/v1/embed", image, JPEG).json["results"][0]["embedding"]
    text = base64.b64encode(image).decode()
    call = {"jsonrpc": "2.0", "method": "Image.embed", "params": [text], "id": 1}
    named = server.ask("/api", json.dumps(call).encode(), JSON).json["result"]["results"][0]["embedding"]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    inferred = server.ask("/v2/models/look/infer", json.dumps({"inputs": [tensor]}).encode(), JSON).json
    embeddings = next(each for each in inferred["outputs"] if each["name"] == "embeddings")
    job = f"/v1/jobs/{server.ask('/v1/jobs?task=embed', image, JPEG).json['id']}"
    servers.wait_until(lambda: server.ask(job).json["state"] == "succeeded", PATIENCE_SECONDS, "the job")
    form, kind = bad_input.multipart(image, field_name="image_upload", task="embed")
    page = server.ask("/upload", form, {"Content-Type": kind, "Accept": "text/html"}).body.decode()

    assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-4)
    assert len(vector) == 8
    assert named == vector
    assert (embeddings["datatype"], embeddings["shape"]) == ("FP32", [1, 8])
    assert embeddings["data"] == pytest.approx(vector)
    assert server.ask(job).json["results"][0]["embedding"] == vector
    assert "A vector of 8 numbers" in page
    assert server.ask("/v1/embed?dimensions=0", image, JPEG).status == 422
    assert len(server.ask("/v1/embed?dimensions=2", image, JPEG).json["results"][0]["embedding"]) == 2


def test_boxes_of_a_detector_with_yolos_head_lie_on_the_upright_picture(server: Server, store: Path) -> None:
    take(server, store, onnx_files.colours(), "detect", "colours", labels=("red", "green", "blue"))
    picture = Image.new("RGB", (256, 128))
    # Input pixels are four of the picture: one cell.
    picture.paste((0, 255, 0), (64, 32, 96, 64))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    address, kind = "/v1/detect?model=colours", {"Content-Type": "image/png"}
    servers.wait_until(lambda: server.ask(address, buffer.getvalue(), kind).status == 200, PATIENCE_SECONDS, "it")

    (result,) = server.ask(address, buffer.getvalue(), kind).json["results"]

    assert [each["label"] for each in result["detections"]] == ["green"]
    assert result["detections"][0]["score"] > 0.85
    assert list(result["detections"][0]["box"].values()) == pytest.approx([64, 32, 96, 64], abs=0.5)


def test_arrays_are_taken_and_given_as_they_are(server: Server, store: Path) -> None:
    take(server, store, onnx_files.table(), "tensor", "rows", labels=None)
    address = "/v1/models/rows/predict"
    row = json.dumps({"features": [1, 2, 3, 4]}).encode()
    servers.wait_until(lambda: server.ask(address, row, JSON).status == 200, PATIENCE_SECONDS, "the network")

    one = server.ask(address, row, JSON).json
    two = server.ask(address, json.dumps({"items": [{"features": [1, 2, 3, 4]}] * 2}).encode(), JSON).json
    wrong = server.ask(address, json.dumps({"features": [1, 2, 3]}).encode(), JSON)
    metadata = server.ask("/v2/models/rows").json
    values = np.array([[1, 2, 3, 4], [9, 0, 0, 0]], np.float32)
    tensor = {"name": "features", "datatype": "FP32", "shape": [2, 4]}
    plain = json.dumps({"inputs": [{**tensor, "data": values.ravel().tolist()}]}).encode()
    inferred = server.ask("/v2/models/rows/infer", plain, JSON).json
    parameters = {"binary_data_size": values.nbytes}
    head = json.dumps(
        {"inputs": [{**tensor, "parameters": parameters}], "parameters": {"binary_data_output": True}}
    ).encode()
    kind = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    binary = server.ask("/v2/models/rows/infer", head + values.tobytes(), kind)
    length = int(binary.headers["Inference-Header-Content-Length"])
    params = {"model": "rows", "items": [{"features": [1, 2, 3, 4]}]}
    call = {"jsonrpc": "2.0", "method": "Model.predict", "params": params, "id": 1}

    assert one["results"] == [{"scores": [1, 2, 3.5], "best": 2}]
    assert two["results"] == one["results"] * 2
    assert (wrong.status, wrong.json["code"]) == (422, "option_invalid")
    assert "features" in wrong.json["detail"]
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert [(each["name"], each["datatype"]) for each in metadata["outputs"]] == [("scores", "FP32"), ("best", "INT64")]
    assert {each["name"]: each["data"] for each in inferred["outputs"]} == {
        "scores": [1, 2, 3.5, 9, 0, 0.5],
        "best": [2, 0],
    }
    assert np.frombuffer(binary.body[length : length + 24], "<f4").tolist() == [1, 2, 3.5, 9, 0, 0.5]
    assert server.ask("/v1/models/rows").json["task"] == "tensor"
    assert server.ask("/api", json.dumps(call).encode(), JSON).json["result"]["results"] == one["results"]
    assert address in server.ask("/openapi.json").json["paths"]


def test_objects_with_masks_by_every_door(server: Server, store: Path) -> None:
    path = store.parent / "masks.pt2"
    instance_networks.save(path)
    take(server, store, path.read_bytes(), "instances", "masks", labels=instance_networks.LABELS, kind=".pt2")
    pixels = np.zeros((128, 256, 3), np.uint8)
    # Four pixels of the picture are one of the input.
    pixels[80:128, 64:128, 1] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    image, kind = buffer.getvalue(), {"Content-Type": "image/png"}
    address = "/v1/instances?score_threshold=0.6"
    servers.wait_until(lambda: server.ask(address, image, kind).status == 200, PATIENCE_SECONDS, "the masks")

    (result,) = server.ask(address, image, kind).json["results"]
    text = base64.b64encode(image).decode()
    params = {"image": text, "score_threshold": 0.6}
    call = {"jsonrpc": "2.0", "method": "Image.instances", "params": params, "id": 1}
    (named,) = server.ask("/api", json.dumps(call).encode(), JSON).json["result"]["results"]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    asked = {"inputs": [tensor], "parameters": {"score_threshold": 0.6}}
    inferred = server.ask("/v2/models/masks/infer", json.dumps(asked).encode(), JSON).json
    form, content = bad_input.multipart(image, field_name="image_upload", task="instances", score_threshold="0.6")
    page = server.ask("/upload", form, {"Content-Type": content, "Accept": "text/html"}).body.decode()

    (row,) = result["instances"]
    mask = np.zeros(128 * 256, bool)
    mask[rle.pixels(row["mask"])] = True
    expected = pixels[..., 1] > 0
    found = mask.reshape(256, 128).T
    assert row["label"] == "green"
    assert (found & expected).sum() / (found | expected).sum() > 0.9
    assert named == result
    masks = next(each for each in inferred["outputs"] if each["name"] == "masks")
    assert (masks["shape"], masks["data"]) == ([1, 1], [row["mask"]["counts"]])
    assert result["mask"] in html.unescape(page)
    assert 'data-label="green"' in page
    nothing = server.ask("/v1/instances?score_threshold=1", image, kind).json["results"][0]
    assert (nothing["instances"], nothing["mask"]) == ([], None)
