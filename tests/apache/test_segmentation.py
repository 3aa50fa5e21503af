"""A model for segmentation behind the real thing: picture in, mask as large as the picture out, by every door."""

from __future__ import annotations

import base64
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
from tritonclient import http

from tests import bad_input, segmenters, servers, stores
from tests.segmenters import LABELS
from tests.servers import Server

JPEG = {"Content-Type": "image/jpeg"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    state_dir, folder = servers.make_state_dir(), Path(tempfile.mkdtemp())
    # The service's own user reads it.
    folder.chmod(0o755)
    store = stores.make(folder)
    segmenters.add(store)
    with servers.start("test", servers.free_port(), state_dir, MODELS_DIR=str(store)) as running:
        servers.wait_until(running.is_ready, 60, "the models")
        yield running
    for each in (state_dir, folder):
        shutil.rmtree(each, ignore_errors=True)


@pytest.fixture(scope="module")
def result(server: Server, sample_path: Path) -> dict[str, Any]:
    """What POST /v1/segment says of the sample picture."""
    answer = server.ask("/v1/segment", sample_path.read_bytes(), JPEG)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json["results"][0]
    return found


def test_mask_is_as_large_as_the_picture_and_areas_are_its_own(result: dict[str, Any]) -> None:
    kind, _, data = result["mask"].partition(",")
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))

    assert kind == "data:image/png;base64"
    assert mask.shape == (result["height"], result["width"])
    assert len(result["segments"]) > 1
    for each in result["segments"]:
        assert each["area"] == pytest.approx((mask == LABELS.index(each["label"])).mean(), abs=1e-4)
    assert sum(each["area"] for each in result["segments"]) == pytest.approx(1, abs=1e-3)


def done(server: Server, image: bytes) -> dict[str, Any]:
    """A job for one image, when it is through."""
    address = f"/v1/jobs/{server.ask('/v1/jobs?task=segment', image, JPEG).json['id']}"
    servers.wait_until(lambda: server.ask(address).json["state"] == "succeeded", 30, "the job")
    found: dict[str, Any] = server.ask(address).json
    return found


def test_every_door_gives_the_same_mask(server: Server, sample_path: Path, result: dict[str, Any]) -> None:
    image = sample_path.read_bytes()
    text = base64.b64encode(image).decode()
    kept = server.ask("/v1/segment", image, JPEG)
    call = {"jsonrpc": "2.0", "method": "Image.segment", "params": [text], "id": 1}
    named = server.ask("/api", json.dumps(call).encode(), JSON)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    inferred = server.ask("/v2/models/streets/infer", json.dumps({"inputs": [tensor]}).encode(), JSON)
    (row,) = done(server, image)["results"]

    assert kept.json["results"] == [result]
    assert named.json["result"]["results"] == [result]
    masks = next(each for each in inferred.json["outputs"] if each["name"] == "masks")
    assert masks["data"] == [result["mask"].partition(",")[2]]
    assert (row["segments"], row["mask"]) == (result["segments"], result["mask"])


def test_page_of_a_job_names_its_classes(server: Server, sample_path: Path, result: dict[str, Any]) -> None:
    job = done(server, sample_path.read_bytes())

    assert result["segments"][0]["label"] in server.ask(f"/jobs/{job['id']}").body.decode()
    before = server.ask(f"/get_result?job_id={job['id']}").json["responses"][0]
    assert [each["label"] for each in before["labels"]] == [each["label"] for each in result["segments"]]


def test_page_without_script_lays_the_mask_over_the_picture(
    server: Server, sample_path: Path, result: dict[str, Any]
) -> None:
    body, content_type = bad_input.multipart(sample_path.read_bytes(), field_name="image_upload", model="streets")

    page = server.ask("/upload", body, {"Content-Type": content_type}).body.decode()

    assert f'class="overlay is-mask" src="{result["mask"]}"' in page
    for each in result["segments"]:
        assert f'color="{each["colour"]}"' in page
        assert f">{each['label']}</span>" in page


@pytest.mark.parametrize(
    ("query", "code"),
    [("max_classes=0", "option_invalid"), ("only_label=unknown", "option_invalid"), ("top_k=1", "option_invalid")],
)
def test_what_cannot_be_asked_is_refused(server: Server, sample_path: Path, query: str, code: str) -> None:
    refused = server.ask(f"/v1/segment?{query}", sample_path.read_bytes(), JPEG)

    assert (refused.status, refused.json["code"]) == (422, code)


def test_only_one_class_leaves_the_others_clear(server: Server, sample_path: Path, result: dict[str, Any]) -> None:
    label = result["segments"][1]["label"]
    found = server.ask(f"/v1/segment?only_label={label}", sample_path.read_bytes(), JPEG).json["results"][0]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"].partition(",")[2]))).convert("RGBA"))

    assert found["segments"] == [result["segments"][1]]
    assert (mask[..., 3] > 0).mean() == pytest.approx(found["segments"][0]["area"], abs=1e-4)


def test_tritons_client_gets_masks_and_areas(server: Server, result: dict[str, Any], sample_path: Path) -> None:
    tensor = http.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([sample_path.read_bytes()], np.object_))
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        told = client.get_model_metadata("streets")["outputs"]
        found = client.infer("streets", [tensor])
        in_json = client.infer("streets", [tensor], outputs=[http.InferRequestedOutput("masks", binary_data=False)])

    png = base64.b64decode(result["mask"].partition(",")[2])
    assert [row["name"] for row in told] == ["masks", "labels", "areas", "counts", "sizes"]
    assert found.as_numpy("masks").tolist() == [png]
    assert in_json.get_output("masks")["data"] == [base64.b64encode(png).decode()]
    assert found.as_numpy("counts").tolist() == [len(result["segments"])]
    labels, areas = found.as_numpy("labels")[0], found.as_numpy("areas")[0]
    assert [each.decode() for each in labels] == [each["label"] for each in result["segments"]]
    assert areas == pytest.approx([each["area"] for each in result["segments"]])


def test_an_ensemble_refuses_masks(server: Server, sample_path: Path) -> None:
    refused = server.ask("/v1/ensemble?task=segment", sample_path.read_bytes(), JPEG)

    assert (refused.status, refused.json["code"]) == (422, "option_invalid")


def test_metrics_count_it(server: Server, result: dict[str, Any]) -> None:
    assert 'cask_predicted_images_total{task="segment"}' in server.ask("/metrics").body.decode()
