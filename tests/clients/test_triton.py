"""Ten calls by Triton's own client with what it adds by itself, where tokens are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException

from tests.servers import Server

DETECTOR, CLASSIFIER = "site-safety-detector", "site-safety-classifier"
MICROSECONDS = 1_000_000


@pytest.fixture
def client(guarded: Server) -> Iterator[http.InferenceServerClient]:
    """A stock client; it shows no token by itself."""
    with http.InferenceServerClient(f"127.0.0.1:{guarded.port}") as found:
        yield found


def test_what_a_server_tells(client: http.InferenceServerClient, guarded: Server) -> None:
    shown = {"X-Api-Token": guarded.token}

    assert client.get_model_config(DETECTOR, headers=shown)["name"] == DETECTOR
    stats = client.get_inference_statistics(headers=shown)["model_stats"]
    assert {each["name"] for each in stats} == {DETECTOR, CLASSIFIER}
    assert client.get_inference_statistics(DETECTOR, "1", headers=shown)["model_stats"][0]["version"] == "1"


@pytest.mark.parametrize(
    "more",
    [
        {"priority": 1},
        {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        {"timeout": 20 * MICROSECONDS},
        {"parameters": {"score_threshold": 0.6}},
        {"request_id": "5", "model_version": "1"},
    ],
    ids=lambda more: next(iter(more)),
)
@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_what_a_client_adds_changes_no_answer(
    client: http.InferenceServerClient, guarded: Server, sample_path: Path, more: dict[str, Any], is_binary: bool
) -> None:
    image, query = sample_path.read_bytes(), "?score_threshold=0.6" if "parameters" in more else ""
    tensor = http.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([image], np.object_))
    requested = [http.InferRequestedOutput("counts", binary_data=is_binary, class_count=2)]
    expected = guarded.ask(f"/v1/detect{query}", image, {"Content-Type": "image/jpeg"})

    found = client.infer(DETECTOR, [tensor], outputs=requested, headers={"X-Api-Token": guarded.token}, **more)

    assert found.as_numpy("counts").tolist() == [len(expected.json["results"][0]["detections"])]


def test_a_missing_token_reaches_the_client_in_words(client: http.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="token"):
        client.get_model_config(DETECTOR)
