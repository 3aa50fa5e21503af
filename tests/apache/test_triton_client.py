"""The Open Inference Protocol with Triton's own HTTP client, against the real service under Apache."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient import http
from tritonclient.utils import InferenceServerException

from tests.servers import Server

DETECTOR, CLASSIFIER = "site-safety-detector", "site-safety-classifier"


@pytest.fixture
def client(served: Server) -> Iterator[http.InferenceServerClient]:
    """A stock client."""
    found = http.InferenceServerClient(f"127.0.0.1:{served.port}")
    yield found
    found.close()


def image_input(*images: bytes, is_binary: bool = True) -> http.InferInput:
    tensor = http.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, np.object_), binary_data=is_binary)
    return tensor


def test_server_is_live_and_ready_and_tells_its_models(client: http.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(DETECTOR)
    assert client.is_model_ready(DETECTOR, "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "cask"
    assert client.get_model_metadata(DETECTOR, "1")["inputs"][0]["datatype"] == "BYTES"
    assert {row["name"]: row["state"] for row in client.get_model_repository_index()} == {
        DETECTOR: "READY",
        CLASSIFIER: "READY",
    }


def test_encoded_images_give_the_detections_of_the_json_api(
    client: http.InferenceServerClient, served: Server, sample_path: Path
) -> None:
    image = sample_path.read_bytes()
    expected = served.ask("/v1/detect", image, {"Content-Type": "image/jpeg"}).json["results"][0]["detections"]

    found = client.infer(DETECTOR, [image_input(image, image)], request_id="7")

    assert found.get_response()["id"] == "7"
    assert found.as_numpy("counts").tolist() == [len(expected)] * 2
    assert found.as_numpy("labels")[0].tolist() == [each["label"].encode() for each in expected]
    boxes = [list(each["box"].values()) for each in expected]
    np.testing.assert_allclose(found.as_numpy("boxes")[1], boxes, atol=0.01)


def test_pixels_in_binary_and_json_give_the_labels_of_the_json_api(
    client: http.InferenceServerClient, served: Server, sample_path: Path
) -> None:
    # As PNG to the JSON API, because a JPEG decoder may leave out detail on the way to a smaller size.
    picture = Image.open(sample_path).convert("RGB").resize((96, 64))
    pixels = np.asarray(picture)[None]
    expected = client.infer(CLASSIFIER, [image_input(_png(picture))])
    answers = []
    for is_binary in (True, False):
        tensor = http.InferInput("pixels", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels, binary_data=is_binary)
        params = [http.InferRequestedOutput(name, binary_data=is_binary) for name in ("labels", "scores")]
        answers.append(client.infer(CLASSIFIER, [tensor], outputs=params, parameters={"top_k": 3}))

    for answer in answers:
        assert [_text(each) for each in answer.as_numpy("labels")[0]] == [
            _text(each) for each in expected.as_numpy("labels")[0][:3]
        ]
        np.testing.assert_allclose(answer.as_numpy("scores")[0], expected.as_numpy("scores")[0][:3], rtol=1e-4)


def test_many_at_once_are_answered(client: http.InferenceServerClient, served: Server, sample_path: Path) -> None:
    with http.InferenceServerClient(f"127.0.0.1:{served.port}", concurrency=4) as many:
        waiting = [many.async_infer(CLASSIFIER, [image_input(sample_path.read_bytes())]) for _ in range(8)]

        labels = [each.get_result().as_numpy("labels")[0, 0] for each in waiting]

    assert len(set(labels)) == 1


def test_failure_reaches_the_client_in_words(client: http.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="not an image of an accepted format"):
        client.infer(DETECTOR, [image_input(b"no image")])
    with pytest.raises(InferenceServerException, match="There is no model nobody"):
        client.infer("nobody", [image_input(b"")])


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _text(element: bytes | str) -> str:
    return element.decode() if isinstance(element, bytes) else element
